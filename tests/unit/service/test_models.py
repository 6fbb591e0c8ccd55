"""Models by name: bases and aliases for all, tuned ones for their project alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.platforms import (
    BASE,
    add_base,
    first_caller,
    open_platform,
    publish,
    run_to_running,
    start_job,
)

from afina.domain.accounts import Caller
from afina.domain.models import ModelState
from afina.errors import Forbidden, ModelNotFound
from afina.service import jobs as service
from afina.service.bases import get_base, list_bases, resolve_base
from afina.service.files import delete_file
from afina.service.models import (
    base_missing,
    delete_model,
    get_model,
    list_models,
    list_names,
    resolve_model,
)
from afina.service.platform import Platform
from afina.store import outbox
from afina.store.tables import MODELS


def tuned(platform: Platform, caller: Caller, scratch: Path) -> str:
    start_job(platform, caller)
    name = publish(platform, run_to_running(platform), scratch).fine_tuned_model
    assert name is not None
    return name


def forgotten(platform: Platform) -> list[str]:
    with platform.database.write() as tx:
        items = outbox.claim_items(tx, platform.clock.now(), 60.0)
    return [item.payload["adapter"] for item in items if item.kind == "forget_adapter"]


def test_engines_forget_what_they_drafted_from_a_file_that_is_deleted(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    job = start_job(platform, caller)
    name = publish(platform, run_to_running(platform), tmp_path, (10,)).fine_tuned_model
    manifest = get_model(platform, caller, str(name)).tuned
    assert manifest is not None
    delete_file(platform, caller, job.training_file)
    assert forgotten(platform) == [manifest.manifest]
    assert get_model(platform, caller, str(name)).tuned == manifest


def test_bases_are_what_the_models_folder_holds(platform: Platform) -> None:
    add_base(platform, "another")
    add_base(platform, "refused", admitted=False, refusal="Too big.")
    models = platform.settings.models
    (models / "half-pulled").mkdir()
    (models / "Not A Slug").mkdir()
    (models / "damaged").mkdir()
    (models / "damaged" / "afina.json").write_text("{")
    assert [base.id for base in list_bases(platform)] == ["another", BASE]
    every = list_bases(platform, admitted_only=False)
    assert [base.id for base in every] == ["another", "refused", BASE]
    assert resolve_base(platform, "refused") is None
    refused = get_base(platform, "refused")
    assert refused is not None
    assert refused.refusal == "Too big."


@pytest.mark.parametrize("name", ["..", "../models/tiny-base", "/etc", "", "TINY-BASE", "a/b"])
def test_a_name_never_leads_out_of_the_models_folder(platform: Platform, name: str) -> None:
    assert get_base(platform, name) is None


def test_tuned_models_are_their_projects_alone(
    platform: Platform, caller: Caller, stranger: Caller, tmp_path: Path
) -> None:
    name = tuned(platform, caller, tmp_path)
    assert [entry.id for entry in list_models(platform, stranger)] == [BASE]
    for verb in (get_model, resolve_model, delete_model):
        with pytest.raises(ModelNotFound, match="does not exist or you do not have access"):
            verb(platform, stranger, name)
    listed = list_models(platform, caller)
    assert [entry.owned_by for entry in listed] == ["system", "local", "local"]
    assert listed[1].id == name


def test_a_name_resolves_to_what_really_runs(tmp_path: Path) -> None:
    platform = open_platform(tmp_path / "data", model_aliases={"gpt-3.5-turbo": BASE})
    caller = first_caller(platform)
    base = resolve_model(platform, caller, "gpt-3.5-turbo")
    assert (base.name, base.base.id, base.adapter) == (BASE, BASE, None)
    name = tuned(platform, caller, tmp_path)
    model = resolve_model(platform, caller, name)
    assert (model.name, model.base.id) == (name, BASE)
    assert model.adapter is not None
    assert platform.blobs.path(model.adapter).exists()
    assert model.tuned is not None
    assert model.tuned.parity == {"passed": True}
    platform.close()


def test_a_tuned_model_without_its_base_says_what_is_missing(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = tuned(platform, caller, tmp_path)
    assert not base_missing(platform, get_model(platform, caller, name))
    assert not any(listed.base_missing for listed in list_names(platform, caller))
    (platform.settings.models / BASE / "afina.json").unlink()
    with pytest.raises(ModelNotFound, match=f"its base model {BASE} is not here"):
        resolve_model(platform, caller, name)
    assert base_missing(platform, get_model(platform, caller, name))
    assert [m.base_missing for m in list_names(platform, caller) if m.id == name] == [True]


def test_a_model_held_back_does_not_answer(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = tuned(platform, caller, tmp_path)
    with platform.database.write() as tx:
        tx.execute(MODELS.update().values(state=ModelState.HELD.value))
    with pytest.raises(ModelNotFound, match="held back"):
        resolve_model(platform, caller, name)
    assert get_model(platform, caller, name).tuned is not None


def test_a_deleted_models_bytes_are_gone_and_its_job_stays(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = tuned(platform, caller, tmp_path)
    entries = [entry for entry in list_models(platform, caller) if entry.tuned]
    job_id = entries[0].tuned.job_id if entries[0].tuned else None
    assert job_id is not None
    kept = platform.settings.runs / job_id / "checkpoints" / "step-20"
    kept.mkdir(parents=True)
    (kept / "adapter_model.safetensors").write_text(f"adapter_model.safetensors {job_id} 20")
    manifest = resolve_model(platform, caller, name).adapter
    delete_model(platform, caller, name)
    with pytest.raises(ModelNotFound):
        get_model(platform, caller, name)
    assert forgotten(platform) == [manifest]
    left = [p for p in platform.settings.data.rglob("*") if p.is_file() and p.suffix != ".db"]
    weights = f"adapter_model.safetensors {job_id} 20".encode()
    assert not any(weights in path.read_bytes() for path in left)
    job = service.get_job(platform, caller, job_id)
    assert job.fine_tuned_model == name
    assert len(service.list_checkpoints(platform, caller, job_id).data) == 2


def test_a_checkpoint_outlives_the_model_it_led_to(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    delete_model(platform, caller, tuned(platform, caller, tmp_path))
    point = list_models(platform, caller)[1]
    resolved = resolve_model(platform, caller, point.id)
    assert resolved.adapter is not None
    assert platform.blobs.path(resolved.adapter).exists()


def test_a_base_cannot_be_deleted(platform: Platform, caller: Caller) -> None:
    with pytest.raises(Forbidden):
        delete_model(platform, caller, BASE)
    assert get_model(platform, caller, BASE).base is not None
