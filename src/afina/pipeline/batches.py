"""The lane that carries out batches, one after another, some lines of each at once.

A line's result is written once, under the batch's fence; what was under way when a worker died is
asked again by the next one, under the same request id and seed. So each `custom_id` stands exactly
once in the output, and its tokens stand once in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from afina.domain.batches import Batch, BatchLine, BatchStatus
from afina.errors import AfinaError, IllegalTransition, NotFound, StaleFence
from afina.pipeline.batch_answers import Answer, answer_line, answerer, unanswered
from afina.pipeline.batch_input import inspect, read_lines
from afina.pipeline.identity import is_known_dead
from afina.service import batches as service
from afina.service.files import find_file
from afina.service.platform import Caller, Platform
from afina.store import batches as store

AT_ONCE: Final = 8
"""Lines that are asked at the same time: enough to fill the engine's batch, and no more."""
GROUP: Final = 64
TICK_S: Final = 0.25
EVERY_S: Final = 0.5
T = TypeVar("T")
log = structlog.get_logger()


class BatchLane:
    """Takes batches under way and carries them out until `stopping` says that the worker ends."""

    def __init__(
        self,
        platform: Platform,
        owner: str,
        stopping: Callable[[], bool],
        answers: Callable[[Platform, Batch], Answer] = answerer,
    ) -> None:
        self._platform = platform
        self._owner = owner
        self._stopping = stopping
        self._answers = answers

    def work(self) -> bool:
        """Carries out one batch; False where none waits."""
        batch = self._claim()
        if batch is None:
            return False
        log.info("batch.claimed", batch=batch.id, fence=batch.fence)
        try:
            asyncio.run(BatchRun(self._platform, batch, self._stopping, self._answers).run())
        except StaleFence:
            log.warning("batch.taken_over", batch=batch.id)
        except AfinaError as error:
            log.warning("batch.fault", batch=batch.id, error=error.one_line())
        finally:
            with self._platform.database.write() as tx:
                store.release(tx, batch)
        return True

    def _claim(self) -> Batch | None:
        with self._platform.database.read() as tx:
            if not store.is_any_live(tx):
                return None
            owners = store.lease_owners(tx)
        dead = [owner for owner in owners if is_known_dead(owner)]
        now, lease_s = self._platform.clock.now(), self._platform.settings.worker.lease_s
        with self._platform.database.write() as tx:
            return store.claim_batch(tx, self._owner, now, lease_s, dead)


@dataclass
class BatchRun:
    """One life of a worker in one batch."""

    platform: Platform
    batch: Batch
    stopping: Callable[[], bool]
    answers: Callable[[Platform, Batch], Answer]
    _results: list[store.LineResult] = field(default_factory=list)
    _beaten: float = float("-inf")

    async def run(self) -> None:
        """From wherever the batch stands to its end, or until the worker stops."""
        sha256 = await asyncio.to_thread(self._input)
        if sha256 is None:
            return
        if self.batch.status is BatchStatus.VALIDATING:
            look = asyncio.to_thread(inspect, self.platform, self.batch, sha256)
            report = await self._beating(look)
            if report.errors:
                service.fail_batch(self.platform, self.batch, report.errors)
                return
            try:
                self.batch = service.begin_batch(
                    self.platform, self.batch, report.total, report.model
                )
            except IllegalTransition:
                self.batch = self._now()
        outcome = await self._answer(sha256)
        if outcome is not None:
            finish = asyncio.to_thread(service.finish_batch, self.platform, self.batch, outcome)
            await self._beating(finish)
            log.info("batch.ended", batch=self.batch.id, outcome=outcome.value)

    def _input(self) -> str | None:
        """The hash of the input's bytes; a batch whose file is gone ends here."""
        batch = self.batch
        caller = Caller(batch.project_id, batch.key_id or "", batch.organization_id)
        try:
            with self.platform.database.read() as tx:
                return find_file(self.platform, tx, caller, batch.input_file_id).sha256
        except NotFound as error:
            told = {"code": "file_not_found", "message": error.message, "line": None, "param": None}
            service.fail_batch(self.platform, batch, [told])
            return None

    async def _answer(self, sha256: str) -> BatchStatus | None:
        """Answers all lines that have no result yet, none where their time is over already; None
        where the worker stops before. A cancellation that was asked for comes first."""
        if self._is_overdue() and await self._beat() is not BatchStatus.CANCELLING:
            await asyncio.to_thread(self._close_unanswered, sha256)
            return BatchStatus.EXPIRED
        with self.platform.database.read() as tx:
            done = store.done_lines(tx, self.batch.id)
        todo = (line for line in read_lines(self.platform, sha256) if line.number not in done)
        answer = self.answers(self.platform, self.batch)
        hands = [asyncio.create_task(self._hand(answer, todo)) for _ in range(AT_ONCE)]
        try:
            ending = await self._watch(hands)
        finally:
            for hand in hands:
                hand.cancel()
            ended = await asyncio.gather(*hands, return_exceptions=True)
            await self._flush()
        for fault in ended:
            if isinstance(fault, Exception):
                raise fault
        if ending == "stop":
            return None
        if ending == "cancel":
            return BatchStatus.CANCELLED
        if ending == "expire":
            await asyncio.to_thread(self._close_unanswered, sha256)
            return BatchStatus.EXPIRED
        return BatchStatus.COMPLETED

    async def _hand(self, answer: Answer, todo: Iterator[BatchLine]) -> None:
        for line in todo:
            # The list is looked up after the wait: a flush puts a new one in its place.
            result = await answer_line(answer, self.batch, line)
            self._results.append(result)
            if len(self._results) >= GROUP:
                await self._flush()

    async def _watch(self, hands: list[asyncio.Task[None]]) -> str:
        """Writes results and beats while the hands work; says why it ended."""
        while True:
            if self.stopping():
                return "stop"
            if await self._beat() is BatchStatus.CANCELLING:
                return "cancel"
            if self._is_overdue():
                return "expire"
            await self._flush()
            _, working = await asyncio.wait(hands, timeout=TICK_S)
            if not working:
                return "done"

    def _is_overdue(self) -> bool:
        return self.platform.now() >= self.batch.expires_at

    async def _flush(self) -> None:
        results, self._results = self._results, []
        if results:
            await asyncio.to_thread(self._write, results)

    def _write(self, results: list[store.LineResult]) -> None:
        with self.platform.database.write() as tx:
            store.add_results(tx, self.batch, results)

    async def _beat(self) -> BatchStatus:
        """Where the batch stands now; the lease is renewed when a third of it is over."""
        return await asyncio.to_thread(self._beat_now)

    def _beat_now(self) -> BatchStatus:
        clock, lease_s = self.platform.clock, self.platform.settings.worker.lease_s
        if clock.monotonic() - self._beaten < lease_s / 3:
            return self._now().status
        self._beaten = clock.monotonic()
        with self.platform.database.write() as tx:
            return store.beat(tx, self.batch, clock.now(), lease_s)

    def _now(self) -> Batch:
        with self.platform.database.read() as tx:
            found = store.get_batch(tx, self.batch.id)
        if found is None or found.fence != self.batch.fence:
            raise StaleFence(f"Another worker has taken over the batch {self.batch.id}.")
        return found

    async def _beating(self, work: Coroutine[Any, Any, T]) -> T:
        """Does `work` and renews the lease meanwhile."""
        task = asyncio.ensure_future(work)
        while True:
            done, _ = await asyncio.wait({task}, timeout=TICK_S)
            if done:
                return task.result()
            await self._beat()

    def _close_unanswered(self, sha256: str) -> None:
        with self.platform.database.read() as tx:
            done = store.done_lines(tx, self.batch.id)
        message = "This request could not be executed before the completion window expired."
        group: list[store.LineResult] = []
        for line in read_lines(self.platform, sha256):
            if line.number not in done:
                told = unanswered(self.batch, line.number, line.custom_id, "batch_expired", message)
                group.append(told)
            if len(group) >= 500:
                self._write(group)
                group = []
        if group:
            self._write(group)
