"""What a job says while it goes on, in the words that the hosted service uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from afina.domain.sayings import Said

Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics", "moderation_checks"]


@dataclass(frozen=True)
class JobEvent:
    """One event. `source` and `sequence` make it unique within its job: a replay adds nothing."""

    id: str
    job_id: str
    created_at: int
    level: Level
    message: str
    type: EventType = "message"
    data: Mapping[str, Any] = field(default_factory=dict)
    source: Literal["platform", "run", "foresight", "integration"] = "platform"
    sequence: int = 0
    said: tuple[Said, ...] = ()
    """What `message` says, by name, for readers of other languages."""


def step_message(
    step: int,
    total_steps: int,
    train_loss: float,
    valid_loss: float | None = None,
    full_valid_loss: float | None = None,
) -> str:
    """`Step 299/300: training loss=0.00, validation loss=0.27, full validation loss=0.40`."""
    text = f"Step {step}/{total_steps}: training loss={train_loss:.2f}"
    if valid_loss is not None:
        text += f", validation loss={valid_loss:.2f}"
    if full_valid_loss is not None:
        text += f", full validation loss={full_valid_loss:.2f}"
    return text
