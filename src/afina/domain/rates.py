"""How fast this machine trains: learned from the jobs that finished on it.

A rate that was measured once, when a model was pulled, is wrong for as long as the model is here if
the machine was busy in that minute. Finished jobs are the better witnesses: of the last ones of the
same base, tuning, method and machine those with steps of about the same size are asked, and the
median answers, so that one job on a busy day does not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

OVERHEAD_S: Final = 20.0
"""Loading the model, saving, parity and publishing, where no job has told it yet."""
_RECENT: Final = 30
_ASKED: Final = 7
_SHORTEST_S: Final = 1.0
"""A job of less says more of its first steps than of the others."""


@dataclass(frozen=True)
class Workload:
    """What jobs have in common that are about equally fast."""

    base_sha256: str
    kind: str = "lora"
    base_bits: int = 16
    method: str = "supervised"
    machine: str = ""
    """Processor and cores: a data directory may be carried to another machine."""


@dataclass(frozen=True)
class PastRun:
    """A run that succeeded: what it was, and what it took."""

    workload: Workload
    tokens: int
    """Trained, over all epochs."""
    steps: int
    seconds: float
    """Of training alone."""
    around_s: float | None
    """Everything else between the trainer's start and its end; None where it was resumed."""

    @property
    def step_tokens(self) -> float:
        return self.tokens / max(1, self.steps)


@dataclass(frozen=True)
class TrainingRate:
    """What an estimate of seconds rests on. `jobs` 0 stands for the measurement at the pull."""

    tokens_per_s: float
    overhead_s: float = OVERHEAD_S
    jobs: int = 0
    busy: bool = False
    """Whether the machine was busy when the rate was measured."""

    def seconds(self, tokens: int) -> float:
        """Of training so many tokens, and all that goes with it."""
        return self.overhead_s + tokens / self.tokens_per_s

    @property
    def origin(self) -> str:
        """Where the rate comes from, for people."""
        if self.jobs == 1:
            return "from the one job that finished here with this model"
        if self.jobs:
            return f"from the last {self.jobs} jobs that finished here with this model"
        if self.busy:
            return "measured when the model was pulled, while the machine was busy: a rough guess"
        return "measured when the model was pulled; no job with it has finished here yet"


def learned_rate(
    past: Sequence[PastRun], workload: Workload, step_tokens: float | None = None
) -> TrainingRate | None:
    """From runs in the order in which they ended; None where none is alike. `step_tokens` is how
    many tokens a step of the job in question has."""
    alike = [run for run in past if run.workload == workload and run.seconds >= _SHORTEST_S]
    alike = alike[-_RECENT:][::-1]
    if step_tokens:
        alike.sort(key=lambda run: abs(math.log(max(1.0, run.step_tokens) / step_tokens)))
    asked = alike[:_ASKED]
    if not asked:
        return None
    around = [run.around_s for run in asked if run.around_s is not None]
    return TrainingRate(
        tokens_per_s=statistics.median(run.tokens / run.seconds for run in asked),
        overhead_s=statistics.median(around) if around else OVERHEAD_S,
        jobs=len(asked),
    )
