"""How a job tunes is settled when it is created, or refused by the path of the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import BASE, run_to_running, start_job, upload

from afina.api.job_extension import JobExtension
from afina.api.requests import JobCreate, job_request
from afina.domain.accounts import Caller
from afina.domain.jobs import Job, JobStatus, Wish
from afina.domain.manifests import TuneKind
from afina.domain.methods import EarlyStopping, Extension, GateWish, Tuning
from afina.errors import InvalidRequest, ModelNotTunable, UnsupportedField
from afina.service import jobs as service
from afina.service import tuning
from afina.service.jobs import JobRequest, get_job
from afina.service.models import delete_model, get_model
from afina.service.platform import Platform
from afina.service.publish import (
    Publication,
    PublishedTune,
    TuneFacts,
    publish_models,
    store_tune,
)
from afina.service.publish import pause_job as publish_pause
from afina.service.refusals import parse
from afina.service.usage import list_ledger
from afina.store.jobs import update_job

pytestmark = pytest.mark.long

EVERY: frozenset[TuneKind] = frozenset({"lora", "dora", "blocks", "full"})


@pytest.fixture(autouse=True)
def engine_serves_all(monkeypatch: pytest.MonkeyPatch, platform: Platform) -> None:
    monkeypatch.setattr(tuning, "SERVED", EVERY)
    folder = platform.settings.models / BASE
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 30}))


def settled(platform: Platform, caller: Caller, asked: dict[str, Any]) -> Tuning:
    body = {"model": BASE, "training_file": "file-x", "afina": {"tuning": asked}}
    request = job_request(parse(JobCreate, body))
    return start_job(platform, caller, extension=request.extension).extension.tuning


def test_a_job_that_says_nothing_tunes_lora_with_all_its_numbers_shown(
    platform: Platform, caller: Caller
) -> None:
    job = start_job(platform, caller)
    shown = get_job(platform, caller, job.id).extension.shown()
    assert shown["tuning"]["kind"] == "lora"
    assert shown["tuning"]["rank"] == 16
    assert shown["tuning"]["alpha"] == 32.0
    assert "q_proj" in shown["tuning"]["target_modules"]
    assert "layers" not in shown["tuning"]
    assert shown["gate"] == {"policy": "report", "suite": "default"}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"rank": 4}, {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}),
        ({"kind": "dora", "alpha": 1.0, "dropout": 0.1}, {"rank": 16, "alpha": 1.0}),
        ({"rank_stabilised": True}, {"rank_stabilised": True, "base_bits": 16}),
        ({"kind": "dora", "base_bits": 4}, {"base_bits": 4, "rank": 16}),
        ({"kind": "last_layers"}, {"layers": 7, "norm_and_head": False, "rank": None}),
        ({"kind": "last_layers", "layers": 30, "norm_and_head": True}, {"layers": 30}),
        ({"kind": "full"}, {"kind": "full", "rank": None, "layers": None}),
    ],
)
def test_what_was_left_open_is_filled_in_for_its_kind(
    platform: Platform, caller: Caller, asked: dict[str, Any], found: dict[str, Any]
) -> None:
    result = settled(platform, caller, asked)
    assert {name: getattr(result, name) for name in found} == found


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"kind": "full", "rank": 4}, "afina.tuning.rank"),
        ({"layers": 4}, "afina.tuning.layers"),
        ({"kind": "last_layers", "dropout": 0.1}, "afina.tuning.dropout"),
        ({"kind": "last_layers", "layers": 31}, "afina.tuning.layers"),
        ({"target_modules": ["q_proj", "w_proj"]}, "afina.tuning.target_modules"),
        ({"rnak": 4}, "afina.tuning.rnak"),
        ({"rank": 513}, "afina.tuning.rank"),
        ({"base_bits": 8}, "afina.tuning.base_bits"),
        ({"kind": "full", "base_bits": 4}, "afina.tuning.base_bits"),
        ({"dropout": 1.0}, "afina.tuning.dropout"),
        ({"kind": "lara"}, "afina.tuning.kind"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_its_path(
    platform: Platform, caller: Caller, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        settled(platform, caller, asked)
    assert refused.value.param == param


def test_a_kind_that_the_engine_does_not_serve_is_refused_before_any_work(
    platform: Platform, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SERVED", frozenset({"lora"}))
    with pytest.raises(UnsupportedField, match="engine") as refused:
        settled(platform, caller, {"kind": "full"})
    assert refused.value.param == "afina.tuning.kind"


def test_stopping_by_the_validation_loss_needs_a_validation_file(
    platform: Platform, caller: Caller
) -> None:
    wished = Extension(early_stopping=EarlyStopping(2), best_checkpoint=True)
    with pytest.raises(InvalidRequest) as refused:
        start_job(platform, caller, extension=wished)
    assert refused.value.param == "afina.early_stopping"


def test_what_the_gate_is_asked_for_is_kept_with_the_job(
    platform: Platform, caller: Caller
) -> None:
    asked = {"gate": {"policy": "hold", "suite": "full"}}
    job = start_job(platform, caller, extension=parse(JobExtension, asked).value())
    assert get_job(platform, caller, job.id).extension.gate == GateWish("hold", "full")


def write_adapter(folder: Path, rank: int) -> dict[str, Path]:
    folder.mkdir()
    config = {"r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_text("weights")
    return {path.name: path for path in folder.iterdir()}


def tuned_model(platform: Platform, caller: Caller, folder: Path, kind: TuneKind = "lora") -> Job:
    """A model of rank 4 on two modules, or one of another kind."""
    start_job(platform, caller)
    job = run_to_running(platform)
    base = platform.settings.models / BASE / "afina.json"
    facts = TuneFacts(json.loads(base.read_text())["sha256"], "c" * 64, "d" * 64, kind=kind)
    manifest = store_tune(platform, job, facts, write_adapter(folder, 4))
    publication = Publication((PublishedTune(5, manifest),), 10, "c" * 64)
    return publish_models(platform, job, publication)


def test_a_job_goes_on_from_a_tuned_model_with_its_rank_and_targets(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = tuned_model(platform, caller, tmp_path / "adapter").fine_tuned_model
    assert name is not None
    file = upload(platform, caller).id
    job = service.create_job(platform, caller, JobRequest(name, file))
    assert (job.model, job.parent) == (BASE, name)
    tuned = job.extension.tuning
    assert (tuned.rank, tuned.alpha, tuned.target_modules) == (4, 8.0, ("q_proj", "v_proj"))
    wider = JobRequest(name, file, extension=Extension(Tuning(rank=8)))
    with pytest.raises(InvalidRequest, match="rank 4") as refused:
        service.create_job(platform, caller, wider)
    assert refused.value.param == "afina.tuning.rank"
    delete_model(platform, caller, name)
    assert job.parent_manifest is not None
    assert platform.blobs.read(job.parent_manifest)


def going_on(platform: Platform, caller: Caller, name: str, asked: dict[str, Any] | None) -> Tuning:
    """How a job that goes on from `name` is settled."""
    body: dict[str, Any] = {"model": name, "training_file": upload(platform, caller).id}
    if asked is not None:
        body["afina"] = {"tuning": asked}
    request = job_request(parse(JobCreate, body))
    return service.create_job(platform, caller, request).extension.tuning


def test_a_job_that_goes_on_and_asks_for_another_kind_is_refused_even_for_the_kind_that_is_usual(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    made = tuned_model(platform, caller, tmp_path / "tune", "dora").fine_tuned_model
    assert made is not None
    for asked in ({"kind": "lora"}, {"kind": "lora", "rank": 4}, {"kind": "full"}):
        with pytest.raises(InvalidRequest, match="tuned with kind dora") as refused:
            going_on(platform, caller, made, asked)
        assert refused.value.param == "afina.tuning.kind"
    for open_kind in (None, {}, {"rank": 4}, {"kind": "dora"}, {"kind": "dora", "rank": 4}):
        assert going_on(platform, caller, made, open_kind).kind == "dora"


def test_what_a_continued_tune_cannot_have_is_named_itself_where_no_kind_was_asked_for(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    made = tuned_model(platform, caller, tmp_path / "tune", "full").fine_tuned_model
    assert made is not None
    assert going_on(platform, caller, made, None) == Tuning("full")
    with pytest.raises(InvalidRequest, match="kind 'full' has no such field") as refused:
        going_on(platform, caller, made, {"dropout": 0.1})
    assert refused.value.param == "afina.tuning.dropout"


def test_a_paused_job_rests_until_it_is_resumed_and_its_work_is_billed_when_it_is_cancelled(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    queued = start_job(platform, caller)
    job = run_to_running(platform)
    wished = service.pause_job(platform, caller, job.id)
    assert (wished.status, wished.wish) == (JobStatus.RUNNING, Wish.PAUSE)
    with pytest.raises(InvalidRequest, match="is about to pause, and is not paused yet"):
        service.resume_job(platform, caller, job.id)
    facts = TuneFacts("b" * 64, "c" * 64, "d" * 64)
    manifest = store_tune(platform, job, facts, write_adapter(tmp_path / "snapshot", 4))
    snapshot = Publication((PublishedTune(7, manifest),), 70, "c" * 64)
    paused = publish_pause(platform, job, snapshot, 70)
    assert (paused.id, paused.status, paused.wish) == (queued.id, JobStatus.PAUSED, None)
    said = service.list_events(platform, caller, job.id).data[0].message
    assert get_model(platform, caller, said.split("Snapshot ID: ")[1])
    with pytest.raises(InvalidRequest, match="paused already"):
        service.pause_job(platform, caller, job.id)
    assert service.resume_job(platform, caller, job.id).status is JobStatus.QUEUED
    with pytest.raises(InvalidRequest, match="queued"):
        service.resume_job(platform, caller, job.id)
    assert service.pause_job(platform, caller, job.id).status is JobStatus.PAUSED
    assert service.cancel_job(platform, caller, job.id).status is JobStatus.CANCELLED
    assert list_ledger(platform, caller).data[0].trained_tokens == 70


@pytest.mark.parametrize("stage", ["parity", "gate"])
def test_a_job_that_is_trained_cannot_be_paused_any_more(
    platform: Platform, caller: Caller, stage: str
) -> None:
    start_job(platform, caller)
    job = run_to_running(platform)
    with platform.database.write() as tx:
        update_job(tx, job.id, job.fence, stage=stage)
    with pytest.raises(InvalidRequest, match="has been trained and is about to be published"):
        service.pause_job(platform, caller, job.id)
    assert get_job(platform, caller, job.id).wish is None


def test_a_pause_that_is_under_way_may_be_asked_for_again(
    platform: Platform, caller: Caller
) -> None:
    start_job(platform, caller)
    job = run_to_running(platform)
    service.pause_job(platform, caller, job.id)
    with platform.database.write() as tx:
        update_job(tx, job.id, job.fence, stage="parity")
    assert service.pause_job(platform, caller, job.id).wish is Wish.PAUSE


def test_a_paused_job_whose_base_is_gone_stays_paused_until_the_base_is_back(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    job = run_to_running(platform)
    service.pause_job(platform, caller, job.id)
    assert publish_pause(platform, job, None, 0).status is JobStatus.PAUSED
    folder = platform.settings.models / BASE
    folder.rename(tmp_path / "away")
    with pytest.raises(ModelNotTunable, match="is not on this machine") as refused:
        service.resume_job(platform, caller, job.id)
    assert refused.value.remedy is not None
    assert "stays paused" in refused.value.remedy
    assert get_job(platform, caller, job.id).status is JobStatus.PAUSED
    (tmp_path / "away").rename(folder)
    assert service.resume_job(platform, caller, job.id).status is JobStatus.QUEUED
