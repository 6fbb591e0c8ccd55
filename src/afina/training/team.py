"""Several processes for one run: each computes some rows of a step, and the gradients are summed.

The trainer leads. Before a step it tells the others its number, the sizes of bins and the masters;
then every process computes its rows, and the sums come together at the leader, which alone moves
the weights, judges, and writes files. So helpers keep nothing that a kill could lose: a run is
resumed from its leader's checkpoint as ever. What a step learns is what one process would have
learned, but for the order in which the last digits are summed (and, with dropout, for the masks);
the same number of processes gives the same bytes.

Speaks through torch.distributed with gloo, on one machine, or between those that `torchrun` joined.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import distributed
from torch.distributed import FileStore  # type: ignore[attr-defined]

from afina.errors import AfinaError, TrainingFailed
from afina.training.failures import is_out_of_memory
from afina.training.memory import halvings_of

_GLANCE: Final = timedelta(milliseconds=200)
_PATIENCE: Final = timedelta(days=7)
"""How long helpers wait while the leader validates, writes or is held still."""


@dataclass(frozen=True)
class Order:
    """What the leader tells, mostly before a step."""

    step: int = 0
    capacities: tuple[int, ...] = ()
    frozen: bool = False
    """Whether what frozen layers compute lies in the run's directory."""
    task: Literal["step", "evaluate", "save", "load"] = "step"
    """Where weights are sharded, the others take part in more than steps."""
    rows: tuple[int, ...] = ()
    """To evaluate."""
    folder: str = ""
    """Of the checkpoint to load."""


class Team:
    """The processes of a run; this one alone."""

    rank = 0
    size = 1
    here = 1
    """How many of them share this machine's memory."""
    halved = 0
    """How often memory ran out in earlier lives of the run."""

    def share(self, items: Sequence[int], weight: Callable[[int], int]) -> tuple[int, ...]:
        """This process's items, in their order: the heaviest ones first, each to whom has least."""
        if self.size == 1:
            return tuple(items)
        loads = [0] * self.size
        mine = set()
        for item in sorted(items, key=lambda one: (-weight(one), one)):
            lightest = loads.index(min(loads))
            loads[lightest] += weight(item)
            if lightest == self.rank:
                mine.add(item)
        return tuple(item for item in items if item in mine)

    def begin(self, order: Order, masters: torch.Tensor) -> None:
        """Tells the others of a step."""

    def collect(
        self,
        grads: torch.Tensor,  # noqa: ARG002
        part: Any,
        failure: BaseException | None,
    ) -> list[Any]:
        """Adds up the gradients of all at the leader; what each has to say, in order. Raises what
        went wrong in any of them, at the leader."""
        if failure is not None:
            raise failure
        return [part]

    def lost(self) -> None:
        """Nothing more can be said to the others: one is gone, or waits for what will not come."""

    def end(self) -> None:
        """Lets the others go."""


class Joined(Team):
    """A process among several; torch.distributed is set up."""

    def __init__(self, root: Path, helpers: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        """`root` is the run's directory. Every process has to come."""
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._helpers = list(helpers)
        self.root = root
        self.halved = halvings_of(root)
        machines: list[Any] = [None] * self.size
        distributed.all_gather_object(machines, socket.gethostname())
        self.here = machines.count(machines[self.rank])
        self._ended = self.broken = False

    def begin(self, order: Order, masters: torch.Tensor) -> None:
        """See Team."""
        with _told(self):
            self._tell(order)
            if len(masters):  # none where each process keeps its own part
                distributed.broadcast(masters, src=0)

    def tell(self, order: Order) -> None:
        """Tells the others of what is no step."""
        with _told(self):
            self._tell(order)

    def listen(self, masters: torch.Tensor) -> Order | None:
        """The leader's next order, its masters in `masters`; None at the end."""
        told: list[Any] = [None]
        distributed.broadcast_object_list(told, src=0)
        if told[0] is not None and len(masters):
            distributed.broadcast(masters, src=0)
        order: Order | None = told[0]
        return order

    def collect(self, grads: torch.Tensor, part: Any, failure: BaseException | None) -> list[Any]:
        """See Team."""
        found: list[Any] = [None] * self.size
        with _told(self):
            distributed.all_gather_object(
                found, (part, None if failure is None else _tale(failure))
            )
            failed = [one for _, one in found if one is not None]
            if not failed and len(grads):
                distributed.reduce(grads, dst=0)
        if failed and not self.rank:
            raise failure or _failure(failed[0])
        return [one for one, _ in found]

    def end(self) -> None:
        """See Team. A helper that is gone already is no fault."""
        if self.rank or self._ended:
            return
        self._ended = True
        whole = not self.broken and all(helper.poll() is None for helper in self._helpers)
        if whole:
            with suppress(RuntimeError):
                self._tell(None)
        for helper in self._helpers:
            if not whole:
                helper.kill()
            helper.wait()
            if helper.stdin is not None:
                helper.stdin.close()
        distributed.destroy_process_group()
        for left in self.root.glob(".team-*"):
            left.unlink(missing_ok=True)

    def lost(self) -> None:
        """See Team."""
        self.broken = True

    def _tell(self, order: Order | None) -> None:
        distributed.broadcast_object_list([order], src=0)


def _tale(failure: BaseException) -> tuple[str, ...]:
    """What went wrong, for another process."""
    if isinstance(failure, AfinaError):
        return ("failed", failure.message, failure.code or "", failure.remedy or "")
    if is_out_of_memory(failure):
        return ("memory",)
    return ("other", type(failure).__name__)


def _failure(tale: tuple[str, ...]) -> BaseException:
    match tale:
        case ("failed", message, code, remedy):
            return TrainingFailed(message, code=code or None, remedy=remedy or None)
        case ("memory",):
            return MemoryError()
        case _:
            return TrainingFailed(
                f"A helper of the run met an unexpected {tale[1]}.",
                remedy="The attempt's log.txt in the run directory says where.",
            )


class _told:  # noqa: N801 - reads as a verb
    """Says in words that another process is gone."""

    def __init__(self, team: Joined) -> None:
        self._team = team

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):
            self._team.lost()
            raise gone(self._team) from error


def gone(team: Joined) -> TrainingFailed:
    """What a run says whose processes are no longer whole."""
    return TrainingFailed(
        f"One of the run's {team.size} processes ended.",
        remedy="The attempt's log.txt says why; the last checkpoint is kept. Fewer "
        "processes (AFINA_TRAINING__PROCESSES) need less memory.",
    )


def start_team(root: Path, size: int) -> Team:
    """The team of the run in `root`, with helpers started on this machine; those that `torchrun`
    started where it did."""
    if distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        return Joined(root)
    if size == 1:
        return Team()
    # they find each other through a file: nobody else on the machine can join
    meeting = root.absolute() / f".team-{os.getpid()}"
    meeting.unlink(missing_ok=True)
    command = [sys.executable, "-m", "afina.training.helper", str(root.absolute())]
    # each watches its standard input, which ends with us
    helpers = [
        subprocess.Popen([*command, str(meeting), str(rank), str(size)], stdin=subprocess.PIPE)
        for rank in range(1, size)
    ]
    return join_team(meeting, 0, size, helpers)


def _await(store: FileStore, rank: int, helper: subprocess.Popen[bytes]) -> None:
    """Waits until a helper is there. Raises TrainingFailed if it ends before."""
    while not store.check([f"here-{rank}"]):
        with suppress(RuntimeError):
            store.wait([f"here-{rank}"], _GLANCE)
        if helper.poll() is not None:
            raise TrainingFailed(
                "A helper of the run did not start.",
                remedy="The attempt's log.txt in the run directory says why.",
            )


def join_team(
    meeting: Path, rank: int, size: int, helpers: Sequence[subprocess.Popen[bytes]] = ()
) -> Joined:
    """The team whose members, on this machine, know the file `meeting`."""
    store = FileStore(str(meeting), size)
    if rank:
        store.set(f"here-{rank}", "1")
    for number, helper in enumerate(helpers, 1):
        _await(store, number, helper)
    distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE
    )
    return Joined(meeting.parent, helpers)
