"""The tour's first judge: early modern English is told from today's."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BARD = Path(__file__).parents[2] / "examples" / "bard"


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bard_judge", BARD / "judge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["questions.csv", "held_out.csv"])
def test_all_our_answers_are_in_the_manner(judge: ModuleType, name: str) -> None:
    with (BARD / name).open(encoding="cp1252", newline="") as file:
        answers = [row["Answer"] for row in csv.DictReader(file) if row["Answer"]]
    assert judge.share_with_markers(answers) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "Machine learning is a state of the art method in which a model learns from data.",
        "Teeth, beneath, Elizabeth: words that only look old.",
        "Thy will be done.",  # one word is no manner
        "",
    ],
)
def test_plain_english_is_not(judge: ModuleType, answer: str) -> None:
    assert not judge.has_markers(answer)


def test_no_held_out_question_is_trained_on() -> None:
    def questions(name: str) -> set[str]:
        with (BARD / name).open(encoding="cp1252", newline="") as file:
            return {row["Question"] for row in csv.DictReader(file)}

    assert not questions("questions.csv") & questions("held_out.csv")
