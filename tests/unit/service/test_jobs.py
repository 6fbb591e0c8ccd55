"""Jobs: created once, seen by their owner alone, cancelled at once or by a wish."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import (
    BASE,
    ROW,
    add_base,
    claim,
    clock_of,
    first_caller,
    open_platform,
    publish,
    run_to_running,
    start_job,
    upload,
)

from afina.domain.accounts import Caller
from afina.domain.jobs import Hyperparameters, Job, JobStatus, Wish
from afina.domain.models import is_tuned_name, tuned_name
from afina.errors import (
    AfinaError,
    Conflict,
    InvalidRequest,
    ModelNotTunable,
    NotFound,
    StaleFence,
)
from afina.service import jobs as service
from afina.service.files import delete_file, get_file, upload_file
from afina.service.jobs import Idempotency, JobRequest, create_job
from afina.service.models import get_model
from afina.service.platform import Platform
from afina.service.usage import list_ledger
from afina.store import jobs


def count_jobs(platform: Platform, caller: Caller) -> int:
    return len(service.list_jobs(platform, caller, limit=1000).data)


def test_a_new_job_echoes_the_request_and_says_its_first_two_events(
    platform: Platform, caller: Caller
) -> None:
    training, validation = upload(platform, caller), upload(platform, caller)
    request = JobRequest(
        BASE,
        training.id,
        validation.id,
        suffix="bard",
        seed=7,
        hyperparameters=Hyperparameters(3, "auto", 0.5),
        method_given=True,
        metadata={"who": "me"},
    )
    job = create_job(platform, caller, request)
    assert job == service.get_job(platform, caller, job.id)
    assert (job.status, job.model, job.seed, job.suffix) == (
        JobStatus.VALIDATING,
        BASE,
        7,
        "bard",
    )
    assert (job.hyperparameters, job.metadata) == (request.hyperparameters, {"who": "me"})
    said = service.list_events(platform, caller, job.id).data
    assert [event.message for event in said] == [
        f"Validating training file: {training.id} and validation file: {validation.id}",
        f"Created fine-tuning job: {job.id}",
    ]


def test_a_job_without_a_seed_gets_one(platform: Platform, caller: Caller) -> None:
    seeds = {start_job(platform, caller).seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_an_alias_is_resolved_and_what_was_asked_is_kept(tmp_path: Path) -> None:
    platform = open_platform(tmp_path / "aliased", model_aliases={"gpt-4o-mini": BASE})
    mine = first_caller(platform)
    job = create_job(platform, mine, JobRequest("gpt-4o-mini", upload(platform, mine).id))
    assert (job.model, job.requested_model) == (BASE, "gpt-4o-mini")
    platform.close()


@pytest.mark.parametrize("name", ["gpt-4o", "", "../x", "refused-base", "x" * 1000])
def test_a_model_that_cannot_be_tuned_is_refused_with_those_that_can(
    platform: Platform, caller: Caller, name: str
) -> None:
    add_base(platform, "refused-base", admitted=False, refusal="It has no chat template.")
    file = upload(platform, caller).id
    with pytest.raises(ModelNotTunable, match=BASE) as caught:
        create_job(platform, caller, JobRequest(name, file))
    assert (caught.value.param, caught.value.code) == ("model", "model_not_available")
    assert ("no chat template" in caught.value.message) is (name == "refused-base")


def test_going_on_from_a_model_that_is_not_there_is_refused_by_name(
    platform: Platform, caller: Caller
) -> None:
    request = JobRequest(f"ft:{BASE}:local::abcdefgh", upload(platform, caller).id)
    with pytest.raises(NotFound) as caught:
        create_job(platform, caller, request)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("My Model_v2", "my-model-v2"),
        ("a/../b", "a-b"),
        ("Bard", "bard"),
        ("São Paulo: año 2", "sao-paulo-ano-2"),
        ("a--b", "a--b"),
        ("x " * 32, "x" + "-x" * 31),
    ],
)
def test_a_suffix_is_kept_as_it_was_given_and_stands_in_names_as_they_may_be(
    platform: Platform, caller: Caller, given: str, named: str
) -> None:
    job = start_job(platform, caller, suffix=given)
    assert job.suffix == given
    name = tuned_name(BASE, "local", job.suffix, "abcdefgh")
    assert name == f"ft:{BASE}:local:{named}:abcdefgh"
    assert is_tuned_name(name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": ""}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": " _ "}, "suffix"),
        ({"suffix": "モデル"}, "suffix"),
        ({"suffix": "a\ud800"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"method": "reinforcement"}, "method.type"),
        ({"hyperparameters": Hyperparameters(beta=2.1)}, "hyperparameters.beta"),
        ({"hyperparameters": Hyperparameters(n_epochs=0)}, "hyperparameters.n_epochs"),
        ({"hyperparameters": Hyperparameters(n_epochs=51)}, "hyperparameters.n_epochs"),
        ({"hyperparameters": Hyperparameters(batch_size=257)}, "hyperparameters.batch_size"),
        (
            {"hyperparameters": Hyperparameters(learning_rate_multiplier=0)},
            "hyperparameters.learning_rate_multiplier",
        ),
        (
            {"hyperparameters": Hyperparameters(learning_rate_multiplier=float("nan"))},
            "hyperparameters.learning_rate_multiplier",
        ),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": "\ud800"}}, "metadata"),
        ({"metadata": {"k": "\x00"}}, "metadata"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(
    platform: Platform, caller: Caller, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create_job(platform, caller, JobRequest(BASE, upload(platform, caller).id, **fields))
    assert caught.value.param == param
    assert count_jobs(platform, caller) == 0


def test_files_must_exist_and_be_for_training(
    platform: Platform, caller: Caller, stranger: Caller
) -> None:
    mine, theirs = upload(platform, caller).id, upload(platform, stranger).id
    notes = upload_file(platform, caller, [b"x"], "n", "user_data").id
    cases = [
        (JobRequest(BASE, "file-none"), NotFound, "training_file"),
        (JobRequest(BASE, theirs), NotFound, "training_file"),
        (JobRequest(BASE, mine, theirs), NotFound, "validation_file"),
        (JobRequest(BASE, notes), InvalidRequest, "training_file"),
    ]
    for request, kind, param in cases:
        with pytest.raises(kind) as caught:
            create_job(platform, caller, request)
        assert isinstance(caught.value, AfinaError)
        assert caught.value.param == param


@pytest.mark.parametrize("name", ["file-\ud800", "file-\x00", "x" * 100_000])
def test_names_that_no_database_can_hold_are_refused(
    platform: Platform, caller: Caller, name: str
) -> None:
    with pytest.raises((InvalidRequest, NotFound)):
        create_job(platform, caller, JobRequest(BASE, name))
    with pytest.raises((InvalidRequest, NotFound)):
        get_model(platform, caller, name)
    with pytest.raises((InvalidRequest, NotFound)):
        service.get_job(platform, caller, name)


@pytest.mark.parametrize(
    "verb",
    [
        service.get_job,
        service.cancel_job,
        service.delete_job,
        service.list_events,
        service.list_checkpoints,
    ],
)
def test_another_projects_job_is_not_there(
    platform: Platform, caller: Caller, stranger: Caller, verb: Callable[..., object]
) -> None:
    job = start_job(platform, caller)
    with pytest.raises(NotFound) as caught:
        verb(platform, stranger, job.id)
    assert caught.value.code == "fine_tune_not_found"
    assert service.list_jobs(platform, stranger).data == ()
    assert service.get_job(platform, caller, job.id) == job


def test_lists_are_newest_first_and_can_be_narrowed_by_metadata(
    platform: Platform, caller: Caller
) -> None:
    file = upload(platform, caller).id
    made = [
        start_job(platform, caller, training_file=file, metadata=metadata).id
        for metadata in ({"a": "1"}, {"a": "1", "b": "2"}, None, {"a": "2"}, {})
    ]

    def ids(**query: Any) -> list[str]:
        return [job.id for job in service.list_jobs(platform, caller, **query).data]

    assert ids() == made[::-1]
    assert ids(limit=2) == [made[4], made[3]]
    assert ids(limit=2, after=made[3]) == [made[2], made[1]]
    assert ids(metadata={"a": "1"}) == [made[1], made[0]]
    assert ids(metadata={"a": "1", "b": "2"}) == [made[1]]
    assert ids(metadata={"a' OR 1=1 --": "x"}) == []
    assert ids(metadata={}) == [made[4], made[2]]
    page = service.list_jobs(platform, caller, limit=5)
    assert not page.has_more


def test_a_job_that_nobody_holds_is_cancelled_at_once(platform: Platform, caller: Caller) -> None:
    job = start_job(platform, caller)
    cancelled = service.cancel_job(platform, caller, job.id)
    assert cancelled.status is JobStatus.CANCELLED
    assert cancelled.finished_at == platform.now()
    assert claim(platform) is None
    newest = service.list_events(platform, caller, job.id).data[0]
    assert newest.message == "The job was cancelled"


def test_a_job_that_a_worker_holds_gets_a_wish_and_says_so_once(
    platform: Platform, caller: Caller
) -> None:
    start_job(platform, caller)
    job = run_to_running(platform)
    for _ in range(2):
        wished = service.cancel_job(platform, caller, job.id)
        assert (wished.status, wished.wish) == (JobStatus.RUNNING, Wish.CANCEL)
    said = [event.message for event in service.list_events(platform, caller, job.id).data]
    assert len([text for text in said if text.startswith("Cancellation requested")]) == 1


def test_cancelling_under_a_lease_that_ran_out_shuts_the_sleeper_out(
    platform: Platform, caller: Caller
) -> None:
    start_job(platform, caller)
    job = run_to_running(platform)
    clock_of(platform).advance(60)
    assert service.cancel_job(platform, caller, job.id).status is JobStatus.CANCELLED
    with pytest.raises(StaleFence), platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.SUCCEEDED)


def test_a_job_that_is_over_cannot_be_cancelled(platform: Platform, caller: Caller) -> None:
    job = start_job(platform, caller)
    over = service.cancel_job(platform, caller, job.id)
    with pytest.raises(InvalidRequest, match="has been cancelled already"):
        service.cancel_job(platform, caller, job.id)
    with pytest.raises(InvalidRequest, match="has been cancelled already: only a paused") as told:
        service.resume_job(platform, caller, job.id)
    assert "Create a job again" in (told.value.remedy or "")
    assert service.get_job(platform, caller, job.id) == over


def test_the_same_key_and_body_give_the_same_answer(platform: Platform, caller: Caller) -> None:
    request = JobRequest(BASE, upload(platform, caller).id)
    once = Idempotency("a" * 64, key="k")
    first = create_job(platform, caller, request, once)
    service.cancel_job(platform, caller, first.id)
    clock_of(platform).advance(24 * 3600 - 1)
    assert create_job(platform, caller, request, once) == first
    clock_of(platform).advance(1)
    assert create_job(platform, caller, request, once).id != first.id


def test_a_key_used_for_another_body_is_refused(platform: Platform, caller: Caller) -> None:
    request = JobRequest(BASE, upload(platform, caller).id)
    create_job(platform, caller, request, Idempotency("a" * 64, key="k"))
    with pytest.raises(InvalidRequest) as caught:
        create_job(platform, caller, request, Idempotency("b" * 64, key="k"))
    assert caught.value.param == "Idempotency-Key"
    assert count_jobs(platform, caller) == 1


def test_keys_of_two_callers_are_apart(
    platform: Platform, caller: Caller, stranger: Caller
) -> None:
    once = Idempotency("a" * 64, key="k")
    first = create_job(platform, caller, JobRequest(BASE, upload(platform, caller).id), once)
    second = create_job(platform, stranger, JobRequest(BASE, upload(platform, stranger).id), once)
    assert first.id != second.id


def test_a_request_that_was_refused_may_be_sent_again_under_its_key(
    platform: Platform, caller: Caller
) -> None:
    once = Idempotency("a" * 64, key="k")
    with pytest.raises(NotFound):
        create_job(platform, caller, JobRequest(BASE, "file-none"), once)
    create_job(platform, caller, JobRequest(BASE, upload(platform, caller).id), once)


def test_a_retry_without_a_key_is_recognised_for_ten_minutes(
    platform: Platform, caller: Caller
) -> None:
    request = JobRequest(BASE, upload(platform, caller).id)
    first = create_job(platform, caller, request, Idempotency("a" * 64))
    retry = Idempotency("a" * 64, retried=True)
    assert create_job(platform, caller, request, retry) == first
    assert create_job(platform, caller, request, Idempotency("b" * 64, retried=True)) != first
    clock_of(platform).advance(601)
    assert create_job(platform, caller, request, retry) != first


def test_the_same_request_twice_on_purpose_makes_two_jobs(
    platform: Platform, caller: Caller
) -> None:
    request = JobRequest(BASE, upload(platform, caller).id)
    first = create_job(platform, caller, request, Idempotency("a" * 64))
    second = create_job(platform, caller, request, Idempotency("a" * 64))
    assert first.id != second.id
    assert create_job(platform, caller, request, Idempotency("a" * 64, retried=True)) == second


@pytest.mark.parametrize(
    "once", [Idempotency("a" * 64, key="k"), Idempotency("a" * 64, retried=True)]
)
def test_a_hundred_parallel_creates_are_one_job(
    platform: Platform, caller: Caller, once: Idempotency
) -> None:
    request = JobRequest(BASE, upload(platform, caller).id)
    answers: list[Job] = []
    start = threading.Barrier(20)

    def ask() -> None:
        start.wait()
        for _ in range(5):
            answers.append(create_job(platform, caller, request, once))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 100
    assert all(answer == answers[0] for answer in answers)
    assert count_jobs(platform, caller) == 1


def test_a_deleted_job_leaves_no_bytes_but_its_model_and_bill_stay(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    job = publish(platform, run_to_running(platform), tmp_path)
    run = platform.settings.runs / job.id
    run.mkdir(parents=True)
    (run / "spec.json").write_text("{}")
    service.delete_job(platform, caller, job.id)
    assert not run.exists()
    for file in job.result_files:
        with pytest.raises(NotFound):
            get_file(platform, caller, file)
    with pytest.raises(NotFound):
        service.get_job(platform, caller, job.id)
    assert job.fine_tuned_model is not None
    assert get_model(platform, caller, job.fine_tuned_model).tuned is not None
    assert list_ledger(platform, caller).data[0].request_id == job.id
    delete_file(platform, caller, job.training_file)
    left = [path for path in platform.settings.blobs.rglob("*") if path.is_file()]
    assert not any(ROW in path.read_bytes() for path in left)


def test_a_job_that_is_not_over_cannot_be_deleted(platform: Platform, caller: Caller) -> None:
    job = start_job(platform, caller)
    with pytest.raises(Conflict):
        service.delete_job(platform, caller, job.id)
