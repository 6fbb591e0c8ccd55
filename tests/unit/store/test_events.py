"""Events are stored once, in order, whatever is replayed."""

from __future__ import annotations

from tests.platforms import claim, first_caller, start_job

from afina.domain.events import JobEvent
from afina.domain.jobs import Job
from afina.service.platform import Platform
from afina.store import events


def running(platform: Platform) -> Job:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    return job


def step(platform: Platform, job: Job, number: int, **data: float) -> JobEvent:
    return JobEvent(
        platform.ids.new("ftevent-"),
        job.id,
        platform.now(),
        "info",
        f"Step {number}",
        "metrics",
        {"step": number, **data},
        "run",
        number,
    )


def said(platform: Platform, job: Job) -> list[str]:
    with platform.database.read() as tx:
        return [event.message for event in events.all_events(tx, job.id)][2:]


def test_events_that_come_again_are_not_added_again(platform: Platform) -> None:
    job = running(platform)
    batches = [range(1, 6), range(3, 9), range(1, 3), range(8, 10)]
    added = []
    for batch in batches:
        with platform.database.write() as tx:
            found = [step(platform, job, number) for number in batch]
            added.append(events.append_events(tx, job.id, job.fence, found))
    assert added == [5, 3, 0, 1]
    assert said(platform, job) == [f"Step {number}" for number in range(1, 10)]


def test_a_late_event_of_a_lower_number_is_still_added(platform: Platform) -> None:
    job = running(platform)
    for number in (5, 2):
        with platform.database.write() as tx:
            events.append_events(tx, job.id, job.fence, [step(platform, job, number)])
    assert said(platform, job) == ["Step 5", "Step 2"]


def test_an_event_twice_in_one_batch_is_added_once(platform: Platform) -> None:
    job = running(platform)
    with platform.database.write() as tx:
        twice = [step(platform, job, 1), step(platform, job, 1)]
        assert events.append_events(tx, job.id, job.fence, twice) == 1


def test_platform_and_run_count_apart(platform: Platform) -> None:
    job = running(platform)
    own = JobEvent("ftevent-own", job.id, 1, "info", "Fine-tuning job started")
    with platform.database.write() as tx:
        mixed = [step(platform, job, 1), own, step(platform, job, 2)]
        assert events.append_events(tx, job.id, job.fence, mixed) == 3
        found = events.all_events(tx, job.id)
    assert [(e.source, e.sequence) for e in found] == [
        ("platform", 1),
        ("platform", 2),
        ("run", 1),
        ("platform", 3),
        ("run", 2),
    ]


def test_offset_and_events_are_stored_together(platform: Platform) -> None:
    job = running(platform)
    with platform.database.write() as tx:
        assert events.run_offset(tx, job.id, 1) is None
        first = [step(platform, job, 1)]
        assert events.ingest_run_events(tx, job.id, job.fence, 1, first, 100) == 1
    with platform.database.write() as tx:
        both = [step(platform, job, 1), step(platform, job, 2)]
        assert events.ingest_run_events(tx, job.id, job.fence, 1, both, 200) == 1
        assert events.ingest_run_events(tx, job.id, job.fence, 2, [], 50) == 0
        assert (events.run_offset(tx, job.id, 1), events.run_offset(tx, job.id, 2)) == (200, 50)


def test_numbers_that_json_cannot_say_become_null(platform: Platform) -> None:
    job = running(platform)
    with platform.database.write() as tx:
        bad = step(platform, job, 1, train_loss=float("nan"), valid_loss=float("inf"))
        events.append_events(tx, job.id, job.fence, [bad])
        found = events.all_events(tx, job.id)[-1]
    assert found.data == {"step": 1, "train_loss": None, "valid_loss": None}


def test_many_events_in_one_batch_are_all_there(platform: Platform) -> None:
    job = running(platform)
    with platform.database.write() as tx:
        many = [step(platform, job, number) for number in range(1, 2001)]
        assert events.append_events(tx, job.id, job.fence, many) == 2000
        assert events.append_events(tx, job.id, job.fence, many) == 0


def test_pages_of_events_are_newest_first_and_leave_out_nothing(platform: Platform) -> None:
    job = running(platform)
    with platform.database.write() as tx:
        many = [step(platform, job, number) for number in range(1, 24)]
        events.append_events(tx, job.id, job.fence, many)
    seen: list[str] = []
    after: str | None = None
    while True:
        with platform.database.read() as tx:
            page = events.list_events(tx, job.id, after, 7)
        seen += [event.message for event in page.data]
        if not page.has_more:
            break
        after = page.data[-1].id
    assert seen[:23] == [f"Step {number}" for number in range(23, 0, -1)]
    assert len(seen) == 25
