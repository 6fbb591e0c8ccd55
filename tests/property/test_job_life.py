"""Whatever workers, users and clocks do to a job, it only ever makes legal moves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.platforms import clock_of, first_caller, open_platform, publish, start_job, upload

from afina.domain.jobs import Job, JobError, JobStatus, may_move
from afina.errors import Conflict, InvalidRequest
from afina.service import jobs as service
from afina.service.publish import end_cancelled, fail_job
from afina.service.usage import list_ledger
from afina.store import jobs, leases

WORKERS = st.sampled_from(["w1", "w2", "w3"])
LEASE_S = 60.0


class JobLifeMachine(RuleBasedStateMachine):
    """One job, three workers that may sleep for long, a user who cancels, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="afina-job-life-"))
        self.platform = open_platform(self.folder / "data")
        self.caller = first_caller(self.platform)
        file = upload(self.platform, self.caller).id
        self.id = start_job(self.platform, self.caller, training_file=file).id
        self.held: dict[str, Job] = {}
        self.seen: list[Job] = [self.now()]

    def teardown(self) -> None:
        self.platform.close()
        shutil.rmtree(self.folder)

    def now(self) -> Job:
        with self.platform.database.read() as tx:
            job = jobs.get_job(tx, self.id)
        assert job is not None
        return job

    def holder(self) -> str | None:
        """Who may write: the worker that holds today's fence."""
        fence = self.now().fence
        return next((w for w, job in self.held.items() if job.fence == fence), None)

    @rule(worker=WORKERS, dead=st.lists(WORKERS, max_size=2))
    def claim(self, worker: str, dead: list[str]) -> None:
        before = self.now()
        with self.platform.database.write() as tx:
            job = leases.claim_job(
                tx,
                statuses=[JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.RUNNING],
                owner=worker,
                now=self.platform.clock.now(),
                lease_s=LEASE_S,
                dead_owners=dead,
            )
        if job is not None:
            assert not before.status.is_terminal
            assert job.fence == before.fence + 1
            self.held[worker] = job

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0]))
    def time_goes_by(self, seconds: float) -> None:
        clock_of(self.platform).advance(seconds)

    @rule(worker=WORKERS, release=st.booleans())
    def beat_or_release(self, worker: str, release: bool) -> None:
        job = self.held.get(worker)
        if job is None:
            return
        may = self.holder() == worker
        try:
            with self.platform.database.write() as tx:
                if release:
                    leases.release(tx, self.id, job.fence)
                else:
                    now = self.platform.clock.now()
                    leases.beat(tx, self.id, job.fence, now, LEASE_S)
        except Conflict:
            return
        assert may

    @rule(worker=WORKERS, status=st.sampled_from(list(JobStatus)))
    def move(self, worker: str, status: JobStatus) -> None:
        job = self.held.get(worker)
        if job is None or status is JobStatus.SUCCEEDED:
            return
        before, may = self.now(), self.holder() == worker
        try:
            with self.platform.database.write() as tx:
                jobs.move_job(tx, self.id, job.fence, status)
        except Conflict:
            assert not may or not may_move(before.status, status)
            return
        assert may
        assert may_move(before.status, status)

    @rule(worker=WORKERS, how=st.sampled_from(["publish", "fail", "cancel"]))
    def end(self, worker: str, how: str) -> None:
        job = self.held.get(worker)
        if job is None:
            return
        may = self.holder() == worker
        try:
            if how == "publish":
                publish(self.platform, job, self.folder)
            elif how == "fail":
                fail_job(self.platform, job, JobError("server_error", "It broke."))
            else:
                end_cancelled(self.platform, job, trained_tokens=7)
        except Conflict:
            return
        assert may

    @rule()
    def user_cancels(self) -> None:
        before = self.now()
        try:
            after = service.cancel_job(self.platform, self.caller, self.id)
        except InvalidRequest:
            assert before.status.is_terminal
            return
        assert not before.status.is_terminal
        assert after.status is JobStatus.CANCELLED or after.wish is not None

    @invariant()
    def only_legal_moves_and_rising_fences(self) -> None:
        before, job = self.seen[-1], self.now()
        if job == before:
            return
        assert not before.status.is_terminal, "a job that is over has changed"
        assert job.fence >= before.fence
        assert job.status is before.status or may_move(before.status, job.status)
        self.seen.append(job)

    @invariant()
    def billed_once_and_only_for_work_done(self) -> None:
        job, entries = self.now(), list_ledger(self.platform, self.caller).data
        expected = 1 if job.status.is_terminal and job.trained_tokens else 0
        assert len(entries) == expected

    @invariant()
    def events_count_without_gaps(self) -> None:
        said = service.list_events(self.platform, self.caller, self.id, limit=1000).data
        assert [event.sequence for event in said] == list(range(len(said), 0, -1))


TestJobLife = JobLifeMachine.TestCase
TestJobLife.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
