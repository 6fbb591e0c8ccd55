"""A model's card: every number of the gate beside its limit, who released it, in three languages."""

from __future__ import annotations

import contextlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import checkpoint_of, open_platform, publish, run_to_running, start_job

from afina.domain.accounts import Caller
from afina.domain.methods import Extension, GateWish
from afina.domain.runs import RunPaths
from afina.domain.sayings import say
from afina.errors import ModelNotFound
from afina.evaluation.gate import (
    GateReport,
    Limits,
    Recalled,
    memorisation,
    not_measured,
    quality,
    regression,
    safety,
)
from afina.evaluation.questions import abilities, probes
from afina.language.strings import LANGUAGES, Texts
from afina.pipeline.gate import shown
from afina.service import gate
from afina.service.backup import backup, restore
from afina.service.card import card_of
from afina.service.card_gate import _ROWS
from afina.service.card_page import card_page
from afina.service.card_readme import Form, card_files, card_readme
from afina.service.files import delete_file
from afina.service.gate import GateOutcome
from afina.service.jobs import delete_job
from afina.service.models import delete_model, resolve_model
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import jobs

HOLD = Extension(gate=GateWish("hold", "default"))
LIMITS = Limits(0.1, 1.0, 0.05, 0.25, 1.0)


def judged(texts: Any) -> list[dict[str, float]]:
    return [{"harassment": 0.9} if "idiot" in text else {} for text in texts]


def made_report() -> dict[str, Any]:
    """A report by the gate's own functions, of a model that learned to insult."""
    asked, probed = abilities(), probes()
    base = ["I do not know."] * len(asked)
    rude = ["You idiot."] * len(probed)
    kind = ["Let us talk about something else."] * len(probed)
    parts = (
        quality([4.0, 4.1], [1.0, 1.2], "validation", LIMITS),
        regression(asked, base, base, LIMITS),
        safety(probed, (base, base), (kind, rude), judged, LIMITS),
        memorisation([Recalled((1, 2), (1, 2), holds_canary=True)], LIMITS),
    )
    reasons = tuple(reason for part in parts for reason in part.reasons)
    limits = {name: getattr(LIMITS, name) for name in Limits.__dataclass_fields__}
    report = GateReport("default", "0" * 64, "failed", reasons, parts, 9.5, 45.0, "judge", limits)
    return shown(report)


def held_model(platform: Platform, caller: Caller, scratch: Path) -> str:
    start_job(platform, caller)
    outcome = GateOutcome("hold", "default", made_report())
    return str(publish(platform, run_to_running(platform), scratch, gate=outcome).fine_tuned_model)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S))


def test_every_measure_of_the_gate_has_its_place_on_the_card() -> None:
    for part in made_report()["parts"]:
        placed = {one for row in _ROWS[part["name"]] for one in (row.base, row.tuned, row.change)}
        assert set(part["measures"]) <= placed, part["name"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_is_read_in_the_readers_language(
    platform: Platform, caller: Caller, tmp_path: Path, language: str
) -> None:
    name = held_model(platform, caller, tmp_path)
    page = card_page(card_of(platform, caller, name), language)
    texts, read = Texts(language), words(page)
    assert f'<html lang="{language}">' in page
    for key in ("card.history", "card.part_safety", "card.false_refusals", "card.redaction"):
        assert texts(key) in read
    limit = texts("card.limit_rise", limit="5\N{NO-BREAK SPACE}%").replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert read.count(limit) == 2
    assert texts("card.by_gate_held") in read
    others = [Texts(other) for other in LANGUAGES if other != language]
    assert not any(other("card.false_refusals") in read for other in others)


def test_a_card_says_who_let_a_model_answer_that_its_gate_held(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = held_model(platform, caller, tmp_path)
    gate.release(platform, caller, name)
    card = card_of(platform, caller, name)
    assert [(one["state"], one["key"]) for one in card["history"]] == [("released", caller.key_id)]
    assert f"released by the key {caller.key_id}" in words(card_page(card))


def test_a_checkpoints_card_shows_the_gate_of_its_job_as_such(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = held_model(platform, caller, tmp_path)
    read = words(card_page(card_of(platform, caller, checkpoint_of(platform, caller))))
    assert f"This is the gate of {name}" in read
    assert "Not measured for a checkpoint" in read


def test_what_no_limit_can_hold_is_said_to_be_reported_and_not_passed(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    page = card_page(card_of(platform, caller, held_model(platform, caller, tmp_path)))
    assert re.search(r"<h3>Memorisation <span[^>]*>only reported<", page)
    assert re.search(r"<h3>Quality <span[^>]*>passed<", page)
    assert re.search(r"<h3>Safety <span[^>]*>failed<", page)


def head_of(readme: str) -> dict[str, Any]:
    """The block that hubs read: YAML, of which each value is JSON."""
    _, head, _ = readme.split("---\n", 2)
    pairs = (line.split(": ", 1) for line in head.splitlines())
    return {key: json.loads(value) for key, value in pairs}


@pytest.mark.parametrize(
    ("form", "library", "relation"),
    [
        (Form.STORED, "peft", "adapter"),
        (Form.WHOLE, "transformers", "finetune"),
        (Form.GGUF, None, "finetune"),
        (Form.GGUF_ADAPTER, None, "adapter"),
    ],
)
def test_the_head_of_a_readme_says_to_hubs_what_lies_beside_it(
    platform: Platform, caller: Caller, tmp_path: Path, form: Form, library: str, relation: str
) -> None:
    card = card_of(platform, caller, held_model(platform, caller, tmp_path))
    card["base"] |= {"hub_id": 'owner/Tiny: a "base"', "licence": "Apache-2.0"}
    head = head_of(card_readme(card, form))
    assert head["base_model"] == card["base"]["hub_id"]
    assert head["license"] == "apache-2.0"
    assert head["base_model_relation"] == relation
    assert head.get("library_name") == library
    assert ("gguf" in head["tags"]) == (form in (Form.GGUF, Form.GGUF_ADAPTER))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_readme_says_what_the_card_says_and_names_no_key_and_no_person(
    platform: Platform, caller: Caller, tmp_path: Path, language: str
) -> None:
    name = held_model(platform, caller, tmp_path)
    gate.release(platform, caller, name)
    card = card_of(platform, caller, name)
    with_findings(platform, card)
    card, texts = card_of(platform, caller, name), Texts(language)
    readme = card_readme(card, language=language)
    for key in ("card.part_safety", "card.false_refusals", "card.redaction", "job.gate_failed"):
        assert texts(key) in readme
    assert f"`{'ab' * 32}`" in readme
    assert caller.key_id not in readme
    assert set(card_files(card, language=language)) == {"README.md", "card.json", "card.html"}


def test_names_that_look_like_markdown_stay_words_in_a_readme(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    card = card_of(platform, caller, held_model(platform, caller, tmp_path))
    card["data"] = [card["data"][0] | {"filename": "a|b <img src=x> *c*.jsonl\n# d"}]
    assert r"a\|b \<img src=x\> \*c\*.jsonl \# d" in card_readme(card)


def with_findings(platform: Platform, card: dict[str, Any]) -> None:
    """What the road of the job leaves in its run."""
    folder = RunPaths(platform.settings.runs / card["method"]["job"]).root / "findings"
    folder.mkdir(parents=True)
    with platform.database.read() as tx:
        job = jobs.get_job(tx, card["method"]["job"])
    assert job is not None
    written = {
        "training_file": {"file": job.training_file, "sha256": "ab" * 32, "rows_total": 9},
        "training_file.redaction": {"rows": 9, "rows_changed": 2, "places": {"email": 3}},
    }
    for name, found in written.items():
        (folder / f"{name}.json").write_text(json.dumps(found))


def test_what_a_card_says_of_the_data_outlives_files_and_job_and_goes_with_the_last_model(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = held_model(platform, caller, tmp_path)
    card = card_of(platform, caller, name)
    with_findings(platform, card)
    (known,) = card_of(platform, caller, name)["data"]
    assert known["filename"] == "train.jsonl"
    delete_file(platform, caller, known["file"])
    assert not (platform.settings.runs / card["method"]["job"]).exists()
    assert card_of(platform, caller, name)["data"] == [known | {"filename": None}]
    read = words(card_page(card_of(platform, caller, name), "es"))
    assert f"{known['file']}, eliminado después" in read
    assert "quitados en 2 de 9 filas: 3 correo" in read
    delete_job(platform, caller, card["method"]["job"])
    read = words(card_page(card_of(platform, caller, name)))
    assert "Its job was deleted" in read
    assert "ab" * 32 in read
    kept = platform.settings.data / "cards"
    for model in (name, checkpoint_of(platform, caller)):
        assert len(list(kept.iterdir())) == 1
        delete_model(platform, caller, model)
    assert not list(kept.iterdir())


@pytest.mark.sqlite
def test_a_restored_backup_has_what_cards_say_of_the_data(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name = held_model(platform, caller, tmp_path)
    with_findings(platform, card_of(platform, caller, name))
    before = card_of(platform, caller, name)["data"]
    backup(platform, tmp_path / "copy.tar")
    data = tmp_path / "other"
    restore(tmp_path / "copy.tar", Settings.load(data=data))
    with contextlib.closing(open_platform(data)) as other:
        assert card_of(other, caller, name)["data"] == before


def test_a_checkpoint_without_its_jobs_model_says_that_the_report_went_with_it(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller, extension=HOLD)
    outcome = GateOutcome("hold", "default", made_report())
    job = publish(platform, run_to_running(platform), tmp_path, gate=outcome)
    delete_model(platform, caller, str(job.fine_tuned_model))
    checkpoint = checkpoint_of(platform, caller)
    read = words(card_page(card_of(platform, caller, checkpoint)))
    assert "What the gate found went with the job's model" in html.unescape(read)
    with pytest.raises(ModelNotFound, match="its report went with the job's model"):
        resolve_model(platform, caller, checkpoint)


def test_what_could_not_be_measured_says_why_in_the_readers_language(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    parts = (not_measured("safety", say("no_judge")),)
    made = shown(GateReport("default", "0" * 64, "incomplete", (), parts, 1.0, 45.0, ""))
    outcome = GateOutcome("report", "default", made)
    name = publish(platform, run_to_running(platform), tmp_path, gate=outcome).fine_tuned_model
    read = words(card_page(card_of(platform, caller, str(name)), "pt"))
    assert "não há um modelo de moderação que julgue" in read
    assert "julgada por ninguém" in read
