"""How often the supervisor had to start the engine again, and why: DATA/engine/restarts.json.

Written by the supervisor alone, which begins at nothing with each start; read by the api for
/metrics, and by `afina doctor`. No torch here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

NAME: Final = "restarts.json"


@dataclass(frozen=True)
class Restarts:
    """Since the supervisor began."""

    ended: int = 0
    """It ended by itself, or was killed by somebody else."""
    hung: int = 0
    """It gave no sign of life, or its steps stood still."""
    last: float = 0.0
    """When, in Unix seconds."""
    reason: str = ""
    """What was said of the last one."""

    def write(self, folder: Path) -> None:
        """Replaces what was written before."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder / f".{NAME}"
        temporary.write_text(json.dumps(asdict(self)) + "\n")
        temporary.replace(folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> Restarts:
        """Nothing where no supervisor has written."""
        try:
            return cls(**json.loads((folder / NAME).read_bytes()))
        except (OSError, ValueError, TypeError):
            return cls()

    def metrics(self) -> bytes:
        """For Prometheus."""
        name = "afina_engine_restarts_total"
        return (
            f"# HELP {name} Times the supervisor started the engine again.\n"
            f"# TYPE {name} counter\n"
            f'{name}{{reason="ended"}} {float(self.ended)}\n'
            f'{name}{{reason="hung"}} {float(self.hung)}\n'
        ).encode()
