"""Follows a living run: its events into the store, and an honest guess of when it ends.

Events and the offset behind them go into one transaction, and every attempt reads the file from
the beginning: what was stored before is recognised, so nothing is missing and nothing is double.
"""

from __future__ import annotations

from collections.abc import Sequence

from afina.domain.events import JobEvent
from afina.domain.ids import EVENT
from afina.domain.jobs import Job
from afina.domain.rates import TrainingRate
from afina.domain.runs import RunEvent, RunPaths, RunSpec
from afina.domain.sayings import text_of
from afina.pipeline.foresight import compared, load_of, rate_of
from afina.pipeline.run_files import EventReader, Tail, read_result, read_spec
from afina.pipeline.wire_events import EventWriter
from afina.service import bases
from afina.service.packing_ahead import packed_run
from afina.service.platform import Platform
from afina.service.rates import note_run
from afina.store import events, jobs

EVERY_S = 0.4
START_S = 6.0
"""Until the first step, as seen on small machines."""
FINISH_S = 4.0
"""Parity and publishing after the last step, as seen on small machines."""
RATE_STEPS = 50
"""The rate is that of the last so many steps of this attempt."""
SURE = 0.25
"""After this share of the steps their pace alone counts; before it, what was expected does too, so
that the time left begins where the estimate stood and does not jump."""


class Follower:
    """What one attempt has said so far."""

    def __init__(self, platform: Platform, job: Job, paths: RunPaths, attempt: int) -> None:
        self._platform = platform
        self._job = job
        self._attempt = attempt
        self._writer = EventWriter(job, platform.ids, platform.clock)
        self._looked = 0.0
        self._started = platform.clock.now()
        self._paths = paths
        self._pace = Pace(self._promise() if attempt == 1 else None)
        self._reader = EventReader(paths)
        self.last: RunEvent | None = None
        self.step = 0
        self.tokens = 0

    def _promise(self) -> float | None:
        """When the job ends by the estimate, now that it starts."""
        settings = self._platform.settings
        spec = read_spec(self._paths)
        base = bases.get_base(self._platform, self._job.model)
        return first_guess(rate_of(settings, base, spec), spec, self._started)

    def look(self) -> None:
        """Store what is new, at most every `EVERY_S` seconds."""
        now = self._platform.clock.monotonic()
        if now - self._looked >= EVERY_S:
            self._looked = now
            self._take_all()

    def finish(self) -> None:
        """Store everything that stands in the file; the trainer has ended. What it took is told
        beside what was expected."""
        self._take_all()
        result = read_result(self._paths)
        if result is None or result.outcome != "succeeded":
            return
        base, spec = bases.get_base(self._platform, self._job.model), read_spec(self._paths)
        settings = self._platform.settings
        sentences, data = compared(base, spec, result, rate_of(settings, base, spec))
        whole = self._platform.clock.now() - self._started
        first = self._attempt == 1
        around = max(0.0, whole - result.train_seconds) + FINISH_S if first else None
        note_run(settings, spec, result, around)
        said = JobEvent(
            id=self._platform.ids.new(EVENT),
            job_id=self._job.id,
            created_at=int(self._platform.clock.now()),
            level="info",
            message=text_of(sentences),
            data=data,
            source="foresight",
            sequence=1,
            said=sentences,
        )
        with self._platform.database.write() as tx:
            events.append_events(tx, self._job.id, self._job.fence, [said])

    def _take_all(self) -> None:
        while (tail := self._reader.read()).events:
            self._store(tail)
            self._reader.accept(tail)
            self._note(tail.events)

    def _note(self, new: Sequence[RunEvent]) -> None:
        self.last = new[-1]
        for event in new:
            if event.kind == "step":
                self.step = int(event.data["step"])
                self.tokens = int(event.data.get("tokens", self.tokens))
                if event.time >= self._started:
                    self._pace.add(self.step, int(event.data["total_steps"]), event.time)

    def _store(self, tail: Tail) -> None:
        said = self._writer.from_run(tail.events)
        guess = self._pace.finish()
        with self._platform.database.write() as tx:
            events.ingest_run_events(
                tx, self._job.id, self._job.fence, self._attempt, said, tail.offset
            )
            if guess is not None:
                jobs.update_job(tx, self._job.id, self._job.fence, estimated_finish=round(guess))


def first_guess(rate: TrainingRate | None, spec: RunSpec, now: float) -> int | None:
    """When a job ends that starts now, from what is known of this machine's rate."""
    if rate is None:
        return None
    around = rate.overhead_s if rate.jobs else START_S + FINISH_S
    return round(now + around + rate.training_seconds(load_of(spec, packed_run(spec))))


class Pace:
    """How fast steps go, from the times of the last of them, and what was expected before them."""

    def __init__(self, promise: float | None = None) -> None:
        self._promise = promise
        self._marks: list[tuple[int, float]] = []
        self._total = 0

    def add(self, step: int, total: int, time: float) -> None:
        """A step was done at `time`."""
        self._total = total
        self._marks = [*self._marks[-RATE_STEPS:], (step, time)]

    def finish(self) -> float | None:
        """When the job ends at this pace; None before the second step."""
        if len(self._marks) < 2:
            return None
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        if last <= first:
            return None
        own = ended + (ended - began) / (last - first) * (self._total - last) + FINISH_S
        sure = min(1.0, last / max(1.0, SURE * self._total))
        return own if self._promise is None else sure * own + (1.0 - sure) * self._promise
