"""A whole run: from a run directory's spec.json to its result.json, through any number of lives.

`run_directory` is called by the child process, by tests and by tools alike. It takes up the newest
whole checkpoint, cuts events.jsonl back to it and goes on; what comes out is the same bytes as if
it had never been stopped.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from afina.data.shards import Shards
from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.domain.jobs import Wish
from afina.domain.runs import RunPaths, RunResult, RunSpec
from afina.domain.sayings import say
from afina.model.base import load_base
from afina.training.background import Writing, has_room
from afina.training.bins import Rows
from afina.training.checkpoints import (
    Found,
    RunState,
    Snapshot,
    environment_of,
    newest_checkpoint,
    remove_beyond,
    sweep_checkpoints,
    write_checkpoint,
)
from afina.training.ending import FROZEN, Ending, Outcome, best_step
from afina.training.events import EventLog
from afina.training.frozen import NoRoom
from afina.training.given import (
    check_base,
    check_files,
    check_sharded,
    read_spec,
    standing_result,
)
from afina.training.measuring import judged, metrics_of
from afina.training.memory import DoesNotFit
from afina.training.methods import Load, build_network, build_stepper
from afina.training.network import Network
from afina.training.optimizer import learning_rate
from afina.training.packing import steps_in_epoch
from afina.training.preferences import REFERENCE, keep_reference, kept_reference, reference_logs
from afina.training.row_losses import FILE as ROW_LOSSES
from afina.training.row_losses import RowLosses
from afina.training.signals import Interrupted, Stop, read_epochs, read_wish
from afina.training.steps import Stepper, checked
from afina.training.team import Team, start_team

NOTHING_YET = RunState(0, 0, 0, 0.0, {})


@dataclass
class Hooks:
    """Where tests hold a run still; `at` is called with the name of each point that it passes."""

    at: Callable[[str, int], None] = lambda _point, _step: None


def run_directory(
    root: Path,
    stop: Stop | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
    hooks: Hooks | None = None,
    load: Load = load_base,
    team: Team | None = None,
) -> RunResult | None:
    """Carries a run to its end; None if `stop` was asked first, with a checkpoint to go on from.
    `load` gives the base, `team` the processes that share its steps."""
    paths = RunPaths(root)
    spec = read_spec(paths)
    standing = standing_result(paths)
    if standing is not None:
        return standing
    if torch.get_num_threads() != spec.threads:
        torch.set_num_threads(spec.threads)
    check_base(spec)
    check_sharded(spec)
    while True:
        try:
            return _live(spec, paths, (stop or Stop(), clock, hooks or Hooks()), load, team)
        except DoesNotFit as error:
            # processes that somebody else started are started again by them
            if team is not None or not error.in_smaller_bins:
                raise
        # outside of the handler, which holds the life that ended by its frames
        gc.collect()


def _live(
    spec: RunSpec, paths: RunPaths, held: tuple[Stop, Clock, Hooks], load: Load, team: Team | None
) -> RunResult | None:
    """One life of a run. Raises DoesNotFit where its weights are sharded and memory runs out."""
    network = build_network(spec, load)
    team = team or start_team(paths.root, spec.processes)
    try:
        network.join(team)
        run = _Run(spec, paths, network, *held)
        try:
            return run.go()
        finally:
            run.close()
    except BaseException:
        team.lost()
        raise
    finally:
        team.end()


class _Run:
    """One life of a run."""

    def __init__(
        self,
        spec: RunSpec,
        paths: RunPaths,
        network: Network,
        stop: Stop,
        clock: Clock,
        hooks: Hooks,
    ) -> None:
        self.spec = spec
        self.paths = paths
        self.network = network
        self.stop = stop
        self.clock = clock
        self.hooks = hooks
        self.shards = Shards.open(Path(spec.training.path))
        self.rows: Rows = self.shards
        self.validation: Rows | None = (
            Shards.open(Path(spec.validation.path)) if spec.validation else None
        )
        if spec.parent is not None:
            check_files(spec.parent)
            self.network.load_files(Path(spec.parent.path), into_masters=True)
        self.optimizer = self.network.optimizer(spec.optimizer)
        self.units = spec.units(len(self.shards))
        self.row_losses = RowLosses(self.units)
        self.total_steps = steps_in_epoch(self.units, spec.batch_size) * spec.epochs
        self.state = NOTHING_YET
        self._writing: Writing | None = None
        self.stepper: Stepper
        self.events = self._take_up()
        self._began = clock.monotonic()
        self._saved_at = self._began
        self._seconds_before = self.state.train_seconds

    def _take_up(self) -> EventLog:
        """Goes back to the newest checkpoint, or to the beginning."""
        found = newest_checkpoint(self.paths)
        self._found: Found | None = None
        remove_beyond(self.paths, found.record.step if found else 0)
        self.saved_step = found.record.step if found else 0
        if found is None:
            events = EventLog(self.paths.events, clock=self.clock)
            events.append("started", self._facts())
            return events
        self.state = found.state
        self._found = found
        events = EventLog(
            self.paths.events,
            length=found.record.events_bytes,
            next_sequence=found.record.next_sequence,
            clock=self.clock,
        )
        if found.record.kind == "epoch":
            # the event follows the checkpoint; a kill may have fallen between the two
            self._tell_checkpoint(events, found.folder)
        self._warn_of_change(events, found)
        return events

    def _warn_of_change(self, events: EventLog, found: Found) -> None:
        """A run that goes on elsewhere may end with other bytes; it says why."""
        here = environment_of(self.spec.threads, self.network.team.size)
        there = {"processes": "1", "kernels": "none", **found.record.environment}
        changed = [
            say("changed", what=name, before=str(there.get(name)), now=here[name])
            for name in here
            if there.get(name) != here[name]
        ]
        if changed:
            events.warn("environment_changed", say("elsewhere", step=found.record.step), *changed)

    def _prepare(self) -> None:
        """What is computed once, from the weights of step 0; then back to the checkpoint. Raises
        Interrupted."""
        room = self.paths.root
        try:
            self.rows = self.network.prepare(self.shards, room / FROZEN, self._interrupted)
            if self.validation is not None:
                folder = room / f"{FROZEN}-valid"
                self.validation = self.network.prepare(self.validation, folder, self._interrupted)
        except NoRoom:
            self.events.warn("no_room_for_outputs", say("no_room_for_outputs"))
            self.rows = self.shards
        self.stepper = build_stepper(
            self.spec, self.network, self.optimizer, (self.rows, self.validation), self._reference
        )
        if self._found is not None:
            self.network.take_up(self._found.folder, self.optimizer)
            self.row_losses.load((self._found.folder / ROW_LOSSES).read_bytes())
            self._found = None

    def _reference(self, rows: Rows, name: str) -> torch.Tensor:
        """The reference of a run on pairs, computed or as an earlier attempt kept it."""
        path = self.paths.root / f"{name}.{REFERENCE}"
        kept = kept_reference(path)
        if kept is not None and len(kept[name]) == len(rows):
            return kept[name]
        capacities = self.spec.bin_capacities
        found = reference_logs(self.network, rows, capacities, self._interrupted)
        keep_reference(path, {name: found})
        return found

    def _interrupted(self) -> bool:
        return self.stop.asked or read_wish(self.paths.control) is not None

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
        prepared = False
        while not self._is_done():
            wish = read_wish(self.paths.control)
            if wish is not None:
                return self._stopped(wish)
            if self.stop.asked:
                self._leave()
                return None
            if self._is_spent():
                self._settle()
                self.events.append("stopped", {"step": self.state.step})
                return self._finish("spent")
            try:
                if not prepared:
                    self._prepare()
                    prepared = True
                self._step(self.state.step + 1)
            except Interrupted:
                continue
        if not prepared:
            self._prepare()
        self._settle()
        return self._finish("succeeded")

    def _is_done(self) -> bool:
        stopping = self.spec.early_stopping
        early = stopping is not None and self.state.stale_epochs >= stopping.patience
        return early or self.state.step >= self.total_steps

    def _is_spent(self) -> bool:
        """Whether the budget has no further epoch; one that has begun is finished."""
        done, rest = divmod(self.state.step, steps_in_epoch(self.units, self.spec.batch_size))
        allowed = read_epochs(self.paths.control) if rest == 0 else None
        return allowed is not None and done >= allowed

    def _step(self, step: int) -> None:
        self.hooks.at("step", step)
        result = self.stepper.take(step, lambda: self.stop.asked)
        for said in result.warnings:
            self.events.warn("memory", said)
        found = metrics_of(self.spec, self.stepper, self.validation, step, result)
        metrics = checked(found, step)
        self.row_losses.note(self.stepper.epoch_of(step), result.row_losses)
        self.state = replace(
            judged(self.state, self.spec.early_stopping, step, metrics),
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
        if self._writing is not None and self._writing.done:
            self._settle()
        if self.stepper.ends_epoch(step):
            self._save("epoch")
        elif self.clock.monotonic() - self._saved_at >= self.spec.resume_interval_s:
            self._save("resume")

    def _save(self, kind: Literal["epoch", "resume"]) -> None:
        """Begins a checkpoint of the run as it stands; `_settle` ends it."""
        self._settle()
        self.hooks.at("saving", self.state.step)
        snapshot = Snapshot(
            state=self.state,
            epoch=self.stepper.epoch_of(max(self.state.step, 1)),
            kind=kind,
            events_bytes=self.events.length,
            next_sequence=self.events.next_sequence,
            environment=environment_of(self.spec.threads, self.network.team.size),
            more={ROW_LOSSES: self.row_losses.to_bytes()},
        )
        beside = self.network.written_beside and has_room(self.optimizer.state_bytes)
        contents = self.network.contents(self.optimizer, still=beside)
        self._saved_at = self.clock.monotonic()
        self.saved_step = self.state.step
        best = best_step(self.spec, self.state)
        events, paths, kept = self.events, self.paths, self.spec.checkpoints_kept

        def write() -> Path:
            events.sync()
            folder = write_checkpoint(paths, snapshot, contents)
            sweep_checkpoints(paths, kept, best)
            return folder

        if kind == "epoch":
            self.events.hold()
        self._writing = Writing(write, beside=beside)
        if kind == "epoch":
            self._tell_checkpoint(self.events, paths.checkpoints / f"step-{self.state.step}")
        if not beside:
            self._settle()

    def _settle(self) -> None:
        """Ends the checkpoint that is being written, if there is one."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.wait()
        self.hooks.at("saved", self.saved_step)
        self.events.release()

    def close(self) -> None:
        """Ends what is under way, and lets go of the files."""
        try:
            if self._writing is not None:
                self._writing.wait()
                self.events.release()
        finally:
            self.events.close()

    def _tell_checkpoint(self, events: EventLog, folder: Path) -> None:
        where, state = folder.relative_to(self.paths.root).as_posix(), self.state
        told = {"step": state.step, "directory": where, "metrics": dict(state.metrics)}
        events.append("checkpoint", told)

    def _leave(self) -> None:
        """SIGTERM: what was done is kept; nothing is said, so that event numbers stay."""
        if self.state.step > self.saved_step:
            self._save("resume")
        self._settle()

    def _stopped(self, wish: Wish) -> RunResult:
        if self.state.step > self.saved_step:
            self._save("resume")
        self._settle()
        if wish is Wish.CANCEL:
            self.events.append("stopped", {"step": self.state.step})
            return self._finish("cancelled")
        # a paused run says nothing: when it goes on, the numbers of its events go on too
        return self._finish("paused")

    def _finish(self, outcome: Outcome) -> RunResult:
        self.hooks.at("finishing", self.state.step)
        train_seconds = self._seconds()
        run = self.spec, self.paths, self.network, self.shards
        ending = Ending(*run, self.row_losses, self.state, self.total_steps)
        result = ending.result(outcome, train_seconds)
        if outcome == "succeeded":
            ending.write_row_losses()
            self.events.append("finished", {"step": self.state.step})
        self.events.sync()
        self.hooks.at("result", self.state.step)
        ending.write(result)
        return result

    def _seconds(self) -> float:
        return self._seconds_before + self.clock.monotonic() - self._began
