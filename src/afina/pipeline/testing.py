"""An honest fake trainer for tests: keeps the contract of a run directory, computes nothing.

    python -m afina.pipeline.testing RUN --parent-fd N [--wait-fd N --base FOLDER --precision P]

It follows `script.json` in the run directory: how many steps, how long each takes, and where the
attempts crash (exit code by attempt). It resumes, obeys wishes and SIGTERM, and writes the same
events and result whatever happened to it, as the real trainer does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from afina.domain.clock import SYSTEM_CLOCK
from afina.domain.codec import decode, encode
from afina.domain.orphans import die_with_parent
from afina.domain.runs import ParityRow, RunCheckpoint, RunEvent, RunPaths, RunResult
from afina.pipeline.run_files import read_all_events, write_json

COMMAND = (sys.executable, "-m", "afina.pipeline.testing")


@dataclass(frozen=True)
class Script:
    """What the fake does. `exits` and `at` say how attempt N ends, and once which step is done."""

    steps: int = 5
    step_s: float = 0.0
    tokens_per_step: int = 10
    exits: tuple[int, ...] = ()
    at: tuple[int, ...] = ()
    fail: dict[str, str] = field(default_factory=dict)
    """Data of a `failed` event to end with instead of a result."""
    adapter: str = "the adapter"


def write_script(paths: RunPaths, script: Script) -> None:
    """Put a script into a run directory."""
    paths.root.mkdir(parents=True, exist_ok=True)
    write_json(paths.root / "script.json", script)


class FakeTrainer:
    """One attempt of the fake."""

    def __init__(self, root: Path) -> None:
        self._paths = RunPaths(root)
        self._script = decode(Script, json.loads((root / "script.json").read_text()))
        self._attempt = len(list(root.glob("attempt-*")))
        self._asked_to_leave = False
        self._told = list(read_all_events(self._paths))

    def run(self) -> int:
        """The exit code of this attempt."""
        signal.signal(signal.SIGTERM, self._on_term)
        if not self._told:
            self._tell("started", {})
        done = sum(event.kind == "step" for event in self._told)
        end = self._scripted_end(done)
        if end is not None:
            return end
        for step in range(done + 1, self._script.steps + 1):
            if self._wish() == "pause":
                return self._finish(step - 1, "paused")
            time.sleep(self._script.step_s)
            self._step(step)
            end = self._scripted_end(step)
            if end is not None:
                return end
            if self._asked_to_leave:
                return 75
            if self._wish() == "cancel":
                return self._finish(step, "cancelled")
        if self._script.fail:
            self._tell("failed", self._script.fail)
            return 1
        return self._finish(self._script.steps, "succeeded")

    def _scripted_end(self, step: int) -> int | None:
        number = self._attempt - 1
        if number >= len(self._script.exits) or step < self._script.at[number]:
            return None
        code = self._script.exits[number]
        if code < 0:
            os.kill(os.getpid(), -code)
        return code

    def _step(self, step: int) -> None:
        loss = 1.0 / step
        data = {
            "step": step,
            "total_steps": self._script.steps,
            "epoch": 1,
            "train_loss": loss,
            "train_mean_token_accuracy": 1.0 - loss,
            "learning_rate": 1e-4,
            "tokens": step * self._script.tokens_per_step,
        }
        self._tell("step", data)

    def _finish(self, steps: int, outcome: Any) -> int:
        folder = self._paths.checkpoints / f"step-{steps}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_text(self._script.adapter)
        tokens = steps * self._script.tokens_per_step
        kept = RunCheckpoint(steps, f"checkpoints/step-{steps}", {"train_loss": 1.0 / steps})
        result = RunResult(
            format=1, outcome=outcome, steps=steps, trained_tokens=tokens, learned_tokens=tokens,
            train_seconds=1.0, tokens_per_second=float(tokens), peak_rss_bytes=1,
            checkpoints=(kept,), parity=(_parity_row(),), precision="fp32",
        )  # fmt: skip
        if outcome != "paused":
            self._tell("finished", {})
        write_json(self._paths.result, result)
        return 0

    def _tell(self, kind: Any, data: Any) -> None:
        event = RunEvent(len(self._told) + 1, SYSTEM_CLOCK.now(), kind, data)
        self._told.append(event)
        with self._paths.events.open("a") as file:
            file.write(json.dumps(encode(event)) + "\n")

    def _wish(self) -> object:
        return json.loads(self._paths.control.read_text()).get("wish")

    def _on_term(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked_to_leave = True


def _parity_row() -> ParityRow:
    return ParityRow((1, 2), (3,), (-0.5,), ((3, 4),), ((-0.5, -1.0),))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--parent-fd", type=int)
    parser.add_argument("--wait-fd", type=int)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--precision")
    given = parser.parse_args()
    die_with_parent(given.parent_fd)
    if given.wait_fd is not None and not os.read(given.wait_fd, 1):
        return 0
    return FakeTrainer(given.run).run()


if __name__ == "__main__":
    sys.exit(main())
