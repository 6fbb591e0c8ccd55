"""A whole run: from a run directory's spec.json to its result.json, through any number of lives.

`run_directory` is called by the child process, by tests and by tools alike. It takes up the newest
whole checkpoint, cuts events.jsonl back to it and goes on; what comes out is the same bytes as if
it had never been stopped.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from afina.data.shards import Shards
from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.domain.codec import decode
from afina.domain.jobs import Wish
from afina.domain.runs import ParityRow, RunCheckpoint, RunPaths, RunResult, RunSpec
from afina.errors import TrainingFailed
from afina.model.base import load_base
from afina.model.folder import read_record
from afina.training.bins import Rows
from afina.training.checkpoints import (
    RunState,
    Snapshot,
    environment_of,
    load_checkpoint,
    newest_checkpoint,
    remove_beyond,
    sweep_checkpoints,
    write_checkpoint,
    write_json,
)
from afina.training.decoding import greedy_rows
from afina.training.evaluation import batch_rows, evaluate
from afina.training.events import EventLog
from afina.training.network import Network, TrainedNetwork
from afina.training.optimizer import AdamW, learning_rate
from afina.training.signals import Stop, read_wish
from afina.training.steps import Interrupted, Stepper, StepResult

Outcome = Literal["succeeded", "cancelled", "paused"]
NOTHING_YET = RunState(0, 0, 0, 0.0, {})


@dataclass
class Hooks:
    """Where tests hold a run still; `at` is called with the name of each point that it passes."""

    at: Callable[[str, int], None] = lambda _point, _step: None


def read_spec(paths: RunPaths) -> RunSpec:
    """The spec of a run. Raises TrainingFailed if it cannot be read."""
    try:
        return decode(RunSpec, json.loads(paths.spec.read_bytes()), "spec")
    except (OSError, ValueError) as error:
        raise TrainingFailed(
            f"The run's spec.json cannot be used: {error}.",
            remedy="Create the job again; run directories are written by the worker alone.",
        ) from None


def run_directory(
    root: Path, stop: Stop | None = None, *, clock: Clock = SYSTEM_CLOCK, hooks: Hooks | None = None
) -> RunResult | None:
    """Carries a run to its end; None if `stop` was asked first, with a checkpoint to go on from."""
    paths = RunPaths(root)
    spec = read_spec(paths)
    standing = _standing_result(paths)
    if standing is not None:
        return standing
    if torch.get_num_threads() != spec.threads:
        torch.set_num_threads(spec.threads)
    run = _Run(spec, paths, stop or Stop(), clock, hooks or Hooks())
    try:
        return run.go()
    finally:
        run.events.close()


def _check_base(spec: RunSpec) -> None:
    """Raises TrainingFailed if another base model stands where the spec's one stood."""
    record = read_record(Path(spec.base.path))
    if record is not None and record.sha256 != spec.base.sha256:
        raise TrainingFailed(
            f"The base model {spec.base.id} has changed since the job was created.",
            remedy="Create the job again: it will be tuned on the base as it is now.",
        )


def _standing_result(paths: RunPaths) -> RunResult | None:
    """A result that is final; one that says `paused` makes way when nobody wishes a pause."""
    try:
        result = decode(RunResult, json.loads(paths.result.read_bytes()), "result")
    except FileNotFoundError:
        return None
    except ValueError:
        paths.result.unlink()
        return None
    if result.outcome == "paused" and read_wish(paths.control) is not Wish.PAUSE:
        paths.result.unlink()
        return None
    return result


class _Run:
    """One life of a run."""

    def __init__(
        self, spec: RunSpec, paths: RunPaths, stop: Stop, clock: Clock, hooks: Hooks
    ) -> None:
        self.spec = spec
        self.paths = paths
        self.stop = stop
        self.clock = clock
        self.hooks = hooks
        self.rows: Rows = Shards.open(Path(spec.training.path))
        self.validation: Rows | None = (
            Shards.open(Path(spec.validation.path)) if spec.validation else None
        )
        _check_base(spec)
        base = load_base(Path(spec.base.path), spec.precision)
        self.network: Network = TrainedNetwork(base, spec.lora, spec.seed, spec.base.id)
        self.optimizer = AdamW(spec.optimizer, self.network.adapter.masters)
        self.stepper = Stepper(spec, self.network, self.optimizer, self.rows)
        self.total_steps = self.stepper.steps_per_epoch * spec.epochs
        self.state = NOTHING_YET
        self.events = self._take_up()
        self._began = clock.monotonic()
        self._saved_at = self._began
        self._seconds_before = self.state.train_seconds

    def _take_up(self) -> EventLog:
        """Goes back to the newest checkpoint, or to the beginning."""
        found = newest_checkpoint(self.paths)
        remove_beyond(self.paths, found.record.step if found else 0)
        self.saved_step = found.record.step if found else 0
        if found is None:
            events = EventLog(self.paths.events, clock=self.clock)
            events.append("started", self._facts())
            return events
        load_checkpoint(found, self.network, self.optimizer)
        self.state = found.state
        events = EventLog(
            self.paths.events,
            length=found.record.events_bytes,
            next_sequence=found.record.next_sequence,
            clock=self.clock,
        )
        if found.record.kind == "epoch":
            # the event follows the checkpoint; a kill may have fallen between the two
            self._tell_checkpoint(events, found.folder)
        return events

    def _facts(self) -> dict[str, object]:
        return {
            "total_steps": self.total_steps,
            "epochs": self.spec.epochs,
            "rows": len(self.rows),
            "precision": self.spec.precision,
            "threads": self.spec.threads,
        }

    def go(self) -> RunResult | None:
        """Steps until the end, a wish or SIGTERM."""
        while self.state.step < self.total_steps:
            wish = read_wish(self.paths.control)
            if wish is not None:
                return self._stopped(wish)
            if self.stop.asked:
                self._leave()
                return None
            try:
                self._step(self.state.step + 1)
            except Interrupted:
                self._leave()
                return None
        return self._finish("succeeded")

    def _step(self, step: int) -> None:
        self.hooks.at("step", step)
        result = self.stepper.take(step, lambda: self.stop.asked)
        metrics = self._metrics(step, result)
        self.state = RunState(
            step=step,
            trained_tokens=self.state.trained_tokens + result.tokens,
            learned_tokens=self.state.learned_tokens + result.learned,
            train_seconds=self._seconds(),
            metrics=metrics,
        )
        self.events.append(
            "step",
            {
                "step": step,
                "total_steps": self.total_steps,
                "epoch": self.stepper.epoch_of(step),
                "learning_rate": learning_rate(self.spec.optimizer, step),
                "tokens": self.state.trained_tokens,
                **metrics,
            },
        )
        if self.stepper.ends_epoch(step):
            folder = self._save("epoch")
            self._tell_checkpoint(self.events, folder)
            sweep_checkpoints(self.paths, self.spec.checkpoints_kept)
        elif self.clock.monotonic() - self._saved_at >= self.spec.resume_interval_s:
            self._save("resume")
            sweep_checkpoints(self.paths, self.spec.checkpoints_kept)

    def _metrics(self, step: int, result: StepResult) -> dict[str, float]:
        metrics = {"train_loss": result.loss, "train_mean_token_accuracy": result.accuracy}
        if self.validation is None:
            return metrics
        interval = self.spec.validation_interval_steps
        size = self.spec.validation_batch_rows
        if step % interval == 0 or step == 1 or self.stepper.ends_epoch(step):
            chosen = batch_rows(len(self.validation), size, self.spec.seed, step // interval)
            found = evaluate(self.network, self.validation, chosen, self.spec.bin_capacities)
            metrics["valid_loss"], metrics["valid_mean_token_accuracy"] = found
        if self.stepper.ends_epoch(step):
            everything = range(len(self.validation))
            found = evaluate(self.network, self.validation, everything, self.spec.bin_capacities)
            metrics["full_valid_loss"], metrics["full_valid_mean_token_accuracy"] = found
        return metrics

    def _save(self, kind: Literal["epoch", "resume"]) -> Path:
        self.events.sync()
        self.hooks.at("saving", self.state.step)
        snapshot = Snapshot(
            state=self.state,
            epoch=self.stepper.epoch_of(max(self.state.step, 1)),
            kind=kind,
            events_bytes=self.events.length,
            next_sequence=self.events.next_sequence,
            environment=environment_of(self.spec.threads),
        )
        folder = write_checkpoint(self.paths, snapshot, self.network, self.optimizer)
        self._saved_at = self.clock.monotonic()
        self.saved_step = self.state.step
        self.hooks.at("saved", self.state.step)
        return folder

    def _tell_checkpoint(self, events: EventLog, folder: Path) -> None:
        state = self.state
        where = folder.relative_to(self.paths.root).as_posix()
        events.append(
            "checkpoint",
            {"step": state.step, "directory": where, "metrics": dict(state.metrics)},
        )

    def _leave(self) -> None:
        """SIGTERM: what was done is kept; nothing is said, so that event numbers stay."""
        if self.state.step > self.saved_step:
            self._save("resume")
            sweep_checkpoints(self.paths, self.spec.checkpoints_kept)

    def _stopped(self, wish: Wish) -> RunResult:
        if self.state.step > self.saved_step:
            self._save("resume")
        if wish is Wish.CANCEL:
            self.events.append("stopped", {"step": self.state.step})
            return self._finish("cancelled")
        # a paused run says nothing: when it goes on, the numbers of its events go on too
        return self._finish("paused")

    def _finish(self, outcome: Outcome) -> RunResult:
        self.hooks.at("finishing", self.state.step)
        train_seconds = self._seconds()
        kept = sweep_checkpoints(self.paths, self.spec.checkpoints_kept)
        parity = self._parity(kept[-1].folder) if outcome == "succeeded" and kept else ()
        if outcome == "succeeded":
            self.events.append("finished", {"step": self.state.step})
        self.events.sync()
        result = RunResult(
            format=1,
            outcome=outcome,
            steps=self.state.step,
            trained_tokens=self.state.trained_tokens,
            learned_tokens=self.state.learned_tokens,
            train_seconds=train_seconds,
            tokens_per_second=self.state.trained_tokens / max(train_seconds, 1e-9),
            peak_rss_bytes=peak_rss_bytes(),
            checkpoints=tuple(
                RunCheckpoint(
                    one.record.step,
                    one.folder.relative_to(self.paths.root).as_posix(),
                    one.record.metrics,
                )
                for one in kept
            ),
            parity=parity,
            precision=self.spec.precision,
        )
        self.hooks.at("result", self.state.step)
        write_json(self.paths.result, result)
        return result

    def _parity(self, folder: Path) -> tuple[ParityRow, ...]:
        self.network.load_files(folder, into_masters=False)
        return greedy_rows(
            self.network,
            self.spec.parity_prompts,
            self.spec.parity_new_tokens,
            self.spec.end_tokens,
            self.spec.bin_capacities,
        )

    def _seconds(self) -> float:
        return self._seconds_before + self.clock.monotonic() - self._began


def peak_rss_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tell_failure(root: Path, failure: Mapping[str, object]) -> None:
    """Appends the `failed` event to a run's log, after whatever whole lines stand there."""
    paths = RunPaths(root)
    raw = paths.events.read_bytes() if paths.events.exists() else b""
    whole = raw[: raw.rfind(b"\n") + 1]
    lines = whole.count(b"\n")
    log = EventLog(paths.events, length=len(whole), next_sequence=lines + 1)
    log.append("failed", failure)
    log.sync()
    log.close()
