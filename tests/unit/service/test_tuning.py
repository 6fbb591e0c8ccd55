"""How a job tunes is settled when it is created, or refused by the path of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.platforms import BASE, start_job

from afina.api.job_extension import JobExtension
from afina.api.requests import JobCreate, job_request
from afina.domain.accounts import Caller
from afina.domain.manifests import TuneKind
from afina.domain.methods import EarlyStopping, Extension, GateWish, Tuning
from afina.errors import InvalidRequest, UnsupportedField
from afina.service import tuning
from afina.service.jobs import get_job
from afina.service.platform import Platform
from afina.service.refusals import parse

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
        ({"rank_stabilised": True}, {"rank_stabilised": True}),
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
