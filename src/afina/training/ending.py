"""The end of a run: what is kept of it, how the model answers, and result.json."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from afina.data.shards import Shards
from afina.domain.runs import ParityRow, RunCheckpoint, RunPaths, RunResult, RunSpec
from afina.training.checkpoints import (
    Found,
    RunState,
    newest_checkpoint,
    sweep_checkpoints,
    write_file,
    write_json,
)
from afina.training.decoding import greedy_rows
from afina.training.memory import peak_rss_bytes
from afina.training.network import Network
from afina.training.row_losses import RowLosses
from afina.training.steps import not_finite

Outcome = Literal["succeeded", "cancelled", "paused", "spent"]
FROZEN = "frozen"
"""Folders of what frozen layers compute; gone when the run is over."""


def best_step(spec: RunSpec, state: RunState) -> int:
    """The step whose checkpoint is kept whatever comes later; 0 for none."""
    return state.best_step if spec.best_checkpoint else 0


@dataclass(frozen=True)
class Ending:
    """A run that takes no further step, with what is left to be told."""

    spec: RunSpec
    paths: RunPaths
    network: Network
    shards: Shards
    row_losses: RowLosses
    state: RunState
    total_steps: int

    def result(self, outcome: Outcome, train_seconds: float) -> RunResult:
        """What result.json is to say. Raises TrainingFailed where the answers of the model have no
        likelihood."""
        kept = self._kept(outcome)
        state = self.state
        return RunResult(
            format=1,
            outcome=outcome,
            steps=state.step,
            trained_tokens=state.trained_tokens,
            learned_tokens=state.learned_tokens,
            train_seconds=train_seconds,
            tokens_per_second=state.trained_tokens / max(train_seconds, 1e-9),
            peak_rss_bytes=peak_rss_bytes(),
            checkpoints=tuple(self._told(one) for one in kept),
            parity=self._parity(kept[-1]) if outcome != "cancelled" and kept else (),
            precision=self.spec.precision,
            stopped_early=outcome == "succeeded" and state.step < self.total_steps,
        )

    def write_row_losses(self) -> None:
        """The file of each row's first and last loss."""
        units = self.spec.units(len(self.shards))
        tokens = self.shards.lengths.reshape(units, -1).sum(1)
        lines = self.shards.lines.reshape(units, -1)[:, 0]
        write_file(self.paths.row_losses, self.row_losses.csv(lines, tokens, self._prompt))

    def write(self, result: RunResult) -> None:
        """result.json; unless the run only rests, what its frozen layers gave goes."""
        write_json(self.paths.result, result)
        if result.outcome != "paused":
            for folder in self.paths.root.glob(f"{FROZEN}*"):
                shutil.rmtree(folder, ignore_errors=True)

    def _prompt(self, unit: int) -> NDArray[np.int32]:
        """The ids before the first that is learned, of a row or of a pair's first answer."""
        units = self.spec.units(len(self.shards))
        ids, learned = self.shards.row(unit * (len(self.shards) // units))
        return ids[: int(learned.argmax())]

    def _kept(self, outcome: Outcome) -> list[Found]:
        """The checkpoints of the result; the last one is the model."""
        best = best_step(self.spec, self.state)
        kept = sweep_checkpoints(self.paths, self.spec.checkpoints_kept, best)
        if outcome == "paused":
            found = newest_checkpoint(self.paths)
            return [] if found is None else [found]
        if self.spec.best_checkpoint:
            kept.sort(key=lambda one: one.record.step == best)
        return kept

    def _told(self, one: Found) -> RunCheckpoint:
        where = one.folder.relative_to(self.paths.root).as_posix()
        return RunCheckpoint(one.record.step, where, one.record.metrics)

    def _parity(self, model: Found) -> tuple[ParityRow, ...]:
        found = greedy_rows(
            self.network.published(model.folder),
            self.spec.parity_prompts,
            self.spec.parity_new_tokens,
            self.spec.end_tokens,
            self.spec.bin_capacities,
        )
        if not all(math.isfinite(sum(row.logprobs)) for row in found):
            raise not_finite("likelihood of an answer by the model", self.state.step)
        return found
