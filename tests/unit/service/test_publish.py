"""The end of a job is one moment: all that came out is visible, or nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.platforms import (
    BASE,
    claim,
    clock_of,
    first_caller,
    open_platform,
    publish,
    run_to_running,
    start_job,
    tune_files,
)

from afina.domain.accounts import Caller
from afina.domain.jobs import Job, JobError, JobStatus
from afina.domain.ledger import EntryKind
from afina.domain.manifests import Manifest
from afina.domain.models import is_tuned_name
from afina.errors import IllegalTransition, Internal, StaleFence
from afina.service import jobs as service
from afina.service.files import open_file
from afina.service.models import list_models, resolve_model
from afina.service.platform import Platform
from afina.service.publish import (
    Publication,
    PublishedTune,
    TuneFacts,
    end_cancelled,
    fail_job,
    publish_models,
    store_tune,
)
from afina.service.sweep import sweep
from afina.service.usage import list_ledger
from afina.store import events

FACTS = TuneFacts("b" * 64, "c" * 64, "d" * 64)


@pytest.fixture
def running(platform: Platform, caller: Caller) -> Job:
    start_job(platform, caller, suffix="bard")
    return run_to_running(platform)


def messages(platform: Platform, caller: Caller, job: Job) -> list[str]:
    return [event.message for event in service.list_events(platform, caller, job.id).data][::-1]


def blobs(platform: Platform) -> int:
    return len(list(platform.blobs.stored()))


def test_a_published_job_shows_everything_that_came_out(
    platform: Platform, caller: Caller, running: Job, tmp_path: Path
) -> None:
    job = publish(platform, running, tmp_path, steps=(10, 20, 30))
    assert job == service.get_job(platform, caller, running.id)
    assert (job.status, job.trained_tokens) == (JobStatus.SUCCEEDED, 1234)
    final = job.fine_tuned_model
    assert final is not None
    assert is_tuned_name(final)
    assert final.startswith(f"ft:{BASE}:local:bard:")
    points = service.list_checkpoints(platform, caller, job.id).data
    assert [point.step for point in points] == [30, 20, 10]
    assert points[0].model == final
    assert points[1].model.endswith(":ckpt-step-20")
    assert len({point.model.split(":")[4] for point in points}) == 3
    assert points[2].metrics == {"step": 10.0, "train_loss": 0.1}
    assert messages(platform, caller, job)[2:] == [
        f"Checkpoint created at step 10 with Snapshot ID: {points[2].model}",
        f"Checkpoint created at step 20 with Snapshot ID: {points[1].model}",
        f"New fine-tuned model created: {final}",
        "The job has successfully completed",
    ]
    names = {entry.id for entry in list_models(platform, caller)}
    assert names == {BASE, *(point.model for point in points)}


def test_the_results_file_is_the_jobs(
    platform: Platform, caller: Caller, running: Job, tmp_path: Path
) -> None:
    job = publish(platform, running, tmp_path)
    file, handle = open_file(platform, caller, job.result_files[0])
    with handle:
        assert handle.read().startswith(b"step,train_loss")
    assert (file.purpose.value, file.filename) == ("fine-tune-results", "step_metrics.csv")


def test_training_is_billed_once_at_the_price_of_the_base(tmp_path: Path) -> None:
    platform = open_platform(tmp_path / "data", prices={BASE: {"training": "0.8"}})
    caller = first_caller(platform)
    start_job(platform, caller)
    job = publish(platform, run_to_running(platform), tmp_path)
    entries = list_ledger(platform, caller).data
    assert [(e.kind, e.request_id, e.model) for e in entries] == [
        (EntryKind.TRAINING, job.id, job.fine_tuned_model)
    ]
    assert entries[0].amount_pico == 1234 * 800_000
    platform.close()


def test_the_manifest_names_every_file_by_its_hash(
    platform: Platform, caller: Caller, running: Job, tmp_path: Path
) -> None:
    job = publish(platform, running, tmp_path)
    resolved = resolve_model(platform, caller, job.fine_tuned_model or "")
    assert resolved.adapter is not None
    manifest = Manifest.from_bytes(platform.blobs.read(resolved.adapter))
    assert manifest.sha256 == resolved.adapter
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors"}
    for name, sha256 in manifest.files.items():
        assert platform.blobs.read(sha256) == f"{name} {job.id} 20".encode()


def test_storing_a_tune_again_changes_nothing(
    platform: Platform, running: Job, tmp_path: Path
) -> None:
    files = tune_files(tmp_path / "tune", "x")
    first = store_tune(platform, running, FACTS, files)
    count = blobs(platform)
    assert store_tune(platform, running, FACTS, files) == first
    assert blobs(platform) == count


def test_a_stored_tune_is_safe_from_the_sweep_until_its_job_is_over(
    platform: Platform, running: Job, tmp_path: Path
) -> None:
    store_tune(platform, running, FACTS, tune_files(tmp_path / "tune", "x"))
    count = blobs(platform)
    clock_of(platform).advance(10**9)
    assert sweep(platform).blobs == 0
    assert blobs(platform) == count
    clock_of(platform).advance(-(10**9))
    fail_job(platform, running, JobError("server_error", "It broke."))
    assert blobs(platform) == count - 3


def test_nothing_is_visible_when_the_lease_was_lost(
    platform: Platform, caller: Caller, running: Job, tmp_path: Path
) -> None:
    manifest = store_tune(platform, running, FACTS, tune_files(tmp_path / "tune", "x"))
    clock_of(platform).advance(61)
    assert claim(platform, "worker-2") is not None
    publication = Publication((PublishedTune(1, manifest),), 5, "c" * 64, results_csv=b"csv")
    with pytest.raises(StaleFence):
        publish_models(platform, running, publication)
    with pytest.raises(StaleFence):
        store_tune(platform, running, FACTS, tune_files(tmp_path / "tune", "y"))
    with pytest.raises(StaleFence):
        fail_job(platform, running, JobError("server_error", "It broke."))
    with pytest.raises(StaleFence):
        end_cancelled(platform, running, 10)
    assert [entry.id for entry in list_models(platform, caller)] == [BASE]
    assert list_ledger(platform, caller).data == ()
    assert list(platform.blobs.staged_files()) == []


def test_nothing_is_visible_when_publishing_breaks_at_its_last_step(
    platform: Platform,
    caller: Caller,
    running: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = messages(platform, caller, running)

    def broken(*_: object) -> int:
        raise Internal("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(events, "append_events", broken)
        with pytest.raises(Internal):
            publish(platform, running, tmp_path)
    assert [entry.id for entry in list_models(platform, caller)] == [BASE]
    assert list_ledger(platform, caller).data == ()
    assert messages(platform, caller, running) == before
    assert service.list_checkpoints(platform, caller, running.id).data == ()
    done = publish(platform, running, tmp_path)
    assert done.status is JobStatus.SUCCEEDED
    assert len(list_ledger(platform, caller).data) == 1


def test_a_job_is_published_once(
    platform: Platform, caller: Caller, running: Job, tmp_path: Path
) -> None:
    publish(platform, running, tmp_path)
    with pytest.raises(IllegalTransition):
        publish(platform, running, tmp_path)
    assert len(list_models(platform, caller)) == 3
    assert len(list_ledger(platform, caller).data) == 1


def test_a_failed_job_says_why_and_costs_nothing(
    platform: Platform, caller: Caller, running: Job
) -> None:
    error = JobError("invalid_n_examples", "Training file has 3 examples", "training_file")
    job = fail_job(platform, running, error)
    assert (job.status, job.error, job.finished_at) == (JobStatus.FAILED, error, platform.now())
    newest = service.list_events(platform, caller, job.id).data[0]
    assert (newest.level, newest.message) == ("error", error.message)
    assert list_ledger(platform, caller).data == ()


@pytest.mark.parametrize(("tokens", "entries"), [(0, 0), (77, 1)])
def test_a_cancelled_job_is_billed_for_the_work_done(
    platform: Platform, caller: Caller, running: Job, tokens: int, entries: int
) -> None:
    job = end_cancelled(platform, running, tokens)
    assert (job.status, job.trained_tokens) == (JobStatus.CANCELLED, tokens or None)
    found = list_ledger(platform, caller).data
    assert [entry.trained_tokens for entry in found] == [tokens] * entries


def test_a_run_without_a_checkpoint_is_not_published(platform: Platform, running: Job) -> None:
    with pytest.raises(Internal):
        publish_models(platform, running, Publication((), 5, "c" * 64))
