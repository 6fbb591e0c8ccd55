"""What a job's two files must be together, and what moderation must leave of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import write_tiny_tokenizer
from tests.unit.pipeline.conftest import Shop
from tests.unit.pipeline.test_moderate import Judge
from tests.unit.pipeline.test_prepare import prepare, upload

from afina.domain.codec import encode
from afina.domain.jobs import Job, JobStatus
from afina.domain.models import BaseModel
from afina.pipeline import moderate
from afina.pipeline.run_files import read_spec
from afina.service import keys
from afina.service.jobs import JobRequest, create_job
from afina.service.moderation import Moderator
from afina.service.platform import Platform
from afina.settings import Settings


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """With a base, and moderation that leaves out what is bad, however much that is."""
    given = {"policy": "quarantine", "max_flagged_share": 1.0}
    opened = Platform.open(Settings.load(data=tmp_path / "data", moderation=given))
    keys.ensure_first_key(opened)
    secret = (opened.settings.data / "api-key").read_text().strip()
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(Judge(), {}))
    folder = opened.settings.models / "tiny"
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    record = BaseModel("tiny", "", "0" * 64, 1, context_tokens=512)
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    yield Shop(opened, keys.authenticate(opened, secret))
    opened.close()


def chats(good: int, bad: int = 0, start: int = 0) -> str:
    rows = ""
    for number in range(start, start + good + bad):
        asked = f"{'bad' if number - start >= good else 'what is'} {number * 7919}?"
        said = [{"role": "user", "content": asked}, {"role": "assistant", "content": f"{number}"}]
        rows += json.dumps({"messages": said}) + "\n"
    return rows


def done(shop: Shop, training: str, validation: str | None = None) -> Job:
    second = None if validation is None else upload(shop, validation)
    request = JobRequest("tiny", upload(shop, training), validation_file=second, seed=7)
    return prepare(shop, create_job(shop.platform, shop.caller, request))


@pytest.mark.parametrize("good", [0, 9])
def test_a_training_file_of_which_moderation_leaves_too_few_rows_fails_before_it_is_trained(
    shop: Shop, good: int
) -> None:
    job = done(shop, chats(good, 16))
    assert (job.status, job.error and job.error.code) == (JobStatus.FAILED, "invalid_n_examples")
    assert job.error is not None
    assert job.error.param == "training_file"
    assert job.error.message == (
        f"Training file has {good} example(s) without the 16 that moderation left out, but must "
        "have at least 10 examples"
    )


def test_a_validation_file_of_which_moderation_leaves_nothing_fails_its_job(shop: Shop) -> None:
    job = done(shop, chats(12), chats(0, 5, start=100))
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_n_examples", "validation_file")


def test_what_moderation_leaves_is_enough_where_ten_rows_and_one_stay(shop: Shop) -> None:
    job = done(shop, chats(10, 3), chats(1, 5, start=100))
    assert job.status is JobStatus.QUEUED
    spec = read_spec(shop.paths(job))
    assert spec.validation is not None
    assert (spec.training.rows, spec.validation.rows) == (10, 1)


def test_a_validation_file_of_another_kind_of_rows_fails_its_job(shop: Shop) -> None:
    raw = json.dumps({"prompt": "the quick", "completion": " fox"}) + "\n"
    job = done(shop, chats(12), raw)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_file_format", "validation_file")
    assert 'Its rows are raw text ("prompt" and "completion")' in job.error.message
