"""The engine's thread: at each step's boundary it hears what came in, then every base steps once.

All state of schedulers, runners and adapters belongs to this one thread; others post functions to
it (`call`) and get deliveries back, a batch a step. If a step breaks, every request that is alive
is told so with a Failure and the engine reports its fault: its process ends, the supervisor starts
another.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import torch

from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.errors import EngineFailed
from afina.serving.heartbeat import Turn, place_of, processor_clock
from afina.serving.lane import Delivery, Lane
from afina.serving.ranks import Pace
from afina.serving.threads import Clocks, Threads

_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Fault:
    """Why the engine ended by itself."""

    message: str


class Engine:
    """Steps all lanes in a thread of its own until it is stopped or breaks."""

    def __init__(
        self,
        deliver: Callable[[list[Delivery]], None],
        threads: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.on_fault: Callable[[Fault], object] = str
        self._deliver = deliver
        self._clock = clock
        cores = len(os.sched_getaffinity(0))
        self.threads = Threads(cores, threads, Clocks(clock.monotonic, time.process_time))
        self._threads_now = 0
        self._pace = Pace()
        self._inbox: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._done = 0
        self._at_work = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step it is in."""
        self.call(self._stop)
        self._thread.join()

    @property
    def turn(self) -> Turn:
        """Where the loop is; read from other threads."""
        return Turn(self._done, self._at_work)

    @property
    def place(self) -> str:
        """Where in the code the loop stands."""
        return place_of(self._thread)

    def processor_clock(self) -> Callable[[], float]:
        """The loop's own processor time; once it runs."""
        return processor_clock(self._thread)

    def call(self, act: Callable[[], object]) -> None:
        """Has the engine's thread do `act` at the next step's boundary."""
        with self._wake:
            self._inbox.append(act)
            self._wake.notify()

    def add_lane(self, base_id: str, lane: Lane) -> None:
        """Takes a base into the loop; called in the engine's thread."""
        self.lanes.setdefault(base_id, lane)
        self._threads_now = 0  # whoever loaded it may have set the process's threads

    def remove_lane(self, name: str) -> None:
        """Lets go of an idle lane; called in the engine's thread."""
        self.lanes.pop(name, None)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._hear()
                self._set_threads()
                self.threads.begin()
                for lane in self._stepping():
                    self._deliver(lane.step())
                    self._done += 1
                self.threads.end(self._threads_now)
                self._rest()
        except BaseException as error:  # noqa: BLE001 - told to every client, then the process ends
            self._break_off(error)

    def _hear(self) -> None:
        with self._wake:
            while not self._inbox and all(lane.is_idle for lane in self.lanes.values()):
                self._at_work = False
                self._wake.wait()
            heard, self._inbox = self._inbox, deque()
        self._at_work = True
        for act in heard:
            act()
            self._done += 1

    def _rest(self) -> None:
        """Leaves the cores to a trainer for a while, unless somebody asks meanwhile."""
        seconds = self.threads.rest_s(front=any(lane.has_front for lane in self.lanes.values()))
        if seconds:
            self._at_work = False
            with self._wake:
                self._wake.wait_for(lambda: bool(self._inbox), seconds)

    def _stepping(self) -> list[Lane]:
        """The lanes that step in this round: those of the background alone let others go first."""
        busy = [lane for lane in self.lanes.values() if not lane.is_idle]
        front = [lane for lane in busy if lane.has_front]
        with_background = self._pace.next(bool(front))
        return busy if with_background or not front else front

    def _set_threads(self) -> None:
        wanted = self.threads.wanted()
        if wanted != self._threads_now:
            torch.set_num_threads(wanted)
            self._threads_now = wanted

    def _break_off(self, error: BaseException) -> None:
        # The kind of error alone: its text may hold what a user wrote.
        _LOG.error("engine.broke", error=type(error).__name__, where=_place(error))
        told = EngineFailed("The engine broke off this answer.", remedy="Ask again in a moment.")
        for lane in self.lanes.values():
            self._deliver(lane.fail_all(told))
        self.on_fault(Fault(type(error).__name__))


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
