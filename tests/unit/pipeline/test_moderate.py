"""The stage that moderates a job's files: what its user is told of flagged rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pipeline.conftest import Shop

from afina.data.moderation.categories import CATEGORIES
from afina.domain.clock import ManualClock
from afina.domain.files import Purpose
from afina.errors import AfinaError, EngineFailed, Overloaded, Unavailable
from afina.pipeline import moderate
from afina.pipeline.held import Cancelled
from afina.pipeline.moderate import Moderation
from afina.pipeline.patience import BREAKS, Patience
from afina.service import keys
from afina.service.moderation import Moderator
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import files

CANARY = "zyxwvut"
LIMIT_S = 60.0


class Judge:
    """Flags what says `bad` as illicit."""

    name = "a judge"

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        return [
            ([0.9 if name == "illicit" and "bad" in text else 0.1 for name in CATEGORIES], 1)
            for text in texts
        ]


@pytest.fixture
def shop(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    given: dict[str, Any] = request.param
    opened = Platform.open(Settings.load(data=tmp_path / "data", moderation=given))
    keys.ensure_first_key(opened)
    secret = (opened.settings.data / "api-key").read_text().strip()
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(Judge(), {}))
    yield Shop(opened, keys.authenticate(opened, secret))
    opened.close()


def moderation(shop: Shop, tmp_path: Path) -> tuple[Moderation, Path]:
    """The stage for a job on twenty rows, of which the third and the ninth are bad; the ninth is
    so in two messages."""
    shop.queue_job()
    job = shop.claim().job
    folder = shop.paths(job).root / "findings"
    folder.mkdir(parents=True)
    rows = tmp_path / "rows.jsonl"
    bad = {2: ("good", f"bad {CANARY}"), 8: ("bad", "bad")}
    with rows.open("w") as file:
        for number in range(20):
            said = [{"role": "user", "content": text} for text in bad.get(number, ("good",))]
            file.write(json.dumps({"messages": said}) + "\n")
    patience = Patience(shop.platform.clock.monotonic, LIMIT_S)
    return Moderation(shop.platform, replace(job), folder, lambda _done, _all: None, patience), rows


@pytest.mark.parametrize("shop", [{"policy": "warn"}, {"policy": "block", "max_flagged_share": 1}],
                         indirect=True)  # fmt: skip
def test_flagged_rows_that_stay_are_named_by_line_place_category_and_score(
    shop: Shop, tmp_path: Path
) -> None:
    stage, rows = moderation(shop, tmp_path)
    report = stage.run("training_file", "0" * 64, rows)
    assert report is not None
    assert not report.refused
    (event,) = shop.events(stage.job)
    assert event.message == (
        "Moderation of the training file: 2 of 20 rows flagged (2 illicit); lines 3, 9; 2 flagged "
        "rows stay and are trained on: drop or mend them, or set moderation.policy to quarantine"
    )
    told = [(m["line"], m["where"], m["category"], m["score"]) for m in event.data["messages"]]
    assert told == [
        (3, "messages[1]", "illicit", 0.9),
        (9, "messages[0]", "illicit", 0.9),
        (9, "messages[1]", "illicit", 0.9),
    ]
    assert CANARY not in json.dumps(dict(event.data))


@pytest.mark.parametrize("shop", [{"policy": "warn"}], indirect=True)
def test_flagged_rows_of_a_validation_file_are_measured_with_and_not_trained_on(
    shop: Shop, tmp_path: Path
) -> None:
    stage, rows = moderation(shop, tmp_path)
    stage.run("validation_file", "0" * 64, rows)
    (event,) = shop.events(stage.job)
    assert "2 flagged rows stay and are measured with: drop or mend them" in event.message
    assert "trained" not in event.message


@pytest.mark.parametrize(
    "shop", [{"policy": "quarantine", "max_flagged_share": 0.1}], indirect=True
)
def test_rows_that_are_left_out_do_not_stay(shop: Shop, tmp_path: Path) -> None:
    stage, rows = moderation(shop, tmp_path)
    report = stage.run("training_file", "0" * 64, rows)
    assert report is not None
    assert report.quarantined_lines == (3, 9)
    assert shop.events(stage.job)[0].message.endswith("lines 3, 9; 2 rows left out")


@pytest.mark.parametrize("shop", [{"policy": "block", "max_flagged_share": 0.096}], indirect=True)
def test_a_refusal_says_which_lines_count_what_to_do_and_where_the_report_is(
    shop: Shop, tmp_path: Path
) -> None:
    stage, rows = moderation(shop, tmp_path)
    report = stage.run("training_file", "0" * 64, rows)
    assert report is not None
    assert report.refused
    error = stage.refusal("training_file", report)
    assert error.code == "invalid_training_file"
    assert "2 of 20 rows (10.00%) are flagged by moderation, more than the 9.60%" in error.message
    assert "in lines 3, 9. Drop or mend them: `afina data moderate FILE --clean" in error.message
    file_id = error.message.rpartition("file ")[2].rstrip(".")
    with shop.platform.database.read() as tx:
        kept = files.get_file(tx, file_id)
    assert kept is not None
    assert kept.purpose is Purpose.FINE_TUNE_RESULTS
    report_file = json.loads(shop.platform.blobs.path(kept.sha256).read_text())
    assert [found["line"] for found in report_file["messages"]] == [3, 9, 9]


class Late(Judge):
    """A judge that cannot be asked the first times."""

    def __init__(self, errors: Sequence[AfinaError]) -> None:
        self.errors = list(errors)

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        if self.errors:
            raise self.errors.pop(0)
        return super().judge(texts)


def impatient(shop: Shop, stage: Moderation) -> Moderation:
    """The stage with a clock that its pauses move."""
    clock = ManualClock()
    return replace(stage, patience=Patience(clock.monotonic, LIMIT_S, pause=clock.advance))


AWAY = Unavailable("The engine is not running.")
BROKEN = EngineFailed("The engine broke off its answer.")


@pytest.mark.parametrize("shop", [{"policy": "warn"}], indirect=True)
@pytest.mark.parametrize("errors", [[AWAY] * 20, [BROKEN] * (BREAKS - 1), [Overloaded("Busy.")]])
def test_a_job_waits_for_an_engine_that_is_about_to_come(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[AfinaError]
) -> None:
    stage, rows = moderation(shop, tmp_path)
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(Late(errors), {}))
    errors_said = errors[0].one_line()
    report = impatient(shop, stage).run("training_file", "0" * 64, rows)
    assert report is not None
    assert report.flagged_rows == 2
    waits, moderated = [event.message for event in shop.events(stage.job)]
    assert waits == f"The training file waits for moderation: {errors_said}"
    assert moderated.startswith("Moderation of the training file: 2 of 20")


@pytest.mark.parametrize("shop", [{"policy": "warn"}], indirect=True)
@pytest.mark.parametrize(
    ("error", "most"),
    [
        (AWAY, 2 * LIMIT_S + 1),
        (BROKEN, BREAKS),
        (Unavailable("There is no model.", code="encoder_missing"), 1),
    ],
)
def test_a_job_waits_no_longer_than_its_patience_and_then_warns_of_both_files(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: AfinaError, most: float
) -> None:
    stage, rows = moderation(shop, tmp_path)
    late = Late([error] * 1000)
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(late, {}))
    stage = impatient(shop, stage)
    assert stage.run("training_file", "0" * 64, rows) is None
    assert 1000 - len(late.errors) == most
    assert stage.run("validation_file", "1" * 64, rows) is None
    assert 1000 - len(late.errors) == most + 1, "the files of a job share its patience"
    told = [event.message for event in shop.events(stage.job)]
    assert [text.partition(" file was not")[0] for text in told if "was not" in text] == [
        "The training",
        "The validation",
    ]


@pytest.mark.parametrize("shop", [{"policy": "quarantine"}], indirect=True)
def test_a_job_that_waits_all_night_says_once_what_for(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, rows = moderation(shop, tmp_path)
    refused = Unavailable("The endpoint gave status 401.", remedy="Check the key.")
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(Late([refused] * 999), {}))
    for _ in range(3):
        with pytest.raises(Unavailable):
            impatient(shop, stage).run("training_file", "0" * 64, rows)
    (event,) = shop.events(stage.job)
    assert event.message.endswith("moderation: The endpoint gave status 401. Check the key.")


@pytest.mark.parametrize(
    "shop", [{"policy": "quarantine", "categories": {"illicit": "warn"}}], indirect=True
)
def test_the_setting_that_lets_rows_stay_is_the_one_that_is_named(
    shop: Shop, tmp_path: Path
) -> None:
    stage, rows = moderation(shop, tmp_path)
    stage.run("training_file", "0" * 64, rows)
    assert shop.events(stage.job)[0].message.endswith("or set moderation.categories to quarantine")


@pytest.mark.parametrize("shop", [{"policy": "warn"}], indirect=True)
def test_a_job_that_is_no_longer_wanted_does_not_wait(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, rows = moderation(shop, tmp_path)
    monkeypatch.setattr(moderate, "moderator_of", lambda _: Moderator(Late([AWAY] * 9), {}))

    def check() -> None:
        raise Cancelled(stage.job.id)

    with pytest.raises(Cancelled):
        replace(impatient(shop, stage), check=check).run("training_file", "0" * 64, rows)
