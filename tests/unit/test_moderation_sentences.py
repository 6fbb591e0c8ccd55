"""The sentences of the moderation model: those it is tested on are no echo of those it learned."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from benchmarks import fit_moderation
from benchmarks.moderation_business import NAMES, ROWS, business
from benchmarks.moderation_data import (
    LANGUAGES,
    NUMBERED,
    PROBE,
    STRANGERS,
    TEST,
    Sentence,
    lines_apart,
    plain_sentences,
    redrawn,
    sentences_of_the_test,
    training_sentences,
)
from benchmarks.train_moderation import weights_of

from afina.data.moderation.categories import CATEGORIES

NEAR = 0.4
"""Share of five-letter runs in common, above which one sentence is a turn of another."""


def runs(text: str) -> frozenset[str]:
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", " ", plain)
    return frozenset(plain[i : i + 5] for i in range(len(plain) - 4))


@pytest.mark.long
def test_no_sentence_that_tests_resembles_one_that_trains() -> None:
    trained = [runs(s.text) for s in (*training_sentences(1), *plain_sentences())]
    places = defaultdict(list)
    for place, found in enumerate(trained):
        for run in found:
            places[run].append(place)
    tested = [s for folder in (TEST, PROBE, ROWS, STRANGERS) for s in sentences_of_the_test(folder)]
    for sentence in tested:
        own = runs(sentence.text)
        shared = Counter(place for run in own for place in places[run])
        for place, count in shared.most_common(20):
            assert count < NEAR * len(own | trained[place]), sentence.text


@pytest.mark.parametrize(
    ("folder", "least"),
    [(TEST, 900), (PROBE, 120), (STRANGERS, 390)],
    ids=["test", "probe", "strangers"],
)
def test_the_languages_and_categories_are_tested_alike(folder: Path, least: int) -> None:
    rows = sentences_of_the_test(folder)
    assert len(rows) >= least
    counts = [Counter(s.category for s in rows if s.language == name) for name in LANGUAGES]
    assert counts[0] == counts[1] == counts[2]
    assert set(counts[0]) == {"none", *CATEGORIES}


def test_every_category_is_taught_in_every_language() -> None:
    rows = training_sentences(1)
    for name in LANGUAGES:
        assert {s.category for s in rows if s.language == name} == {"none", *CATEGORIES}


def test_lines_of_business_that_are_kept_apart_train_nothing() -> None:
    apart = {s.source for s in lines_apart()}
    read = [s for s in training_sentences(2) if s.manner == NUMBERED]
    assert apart.isdisjoint(s.source for s in read)
    assert 0.1 < len(apart) / len(apart | {s.source for s in read}) < 0.3
    for rows in (lines_apart(), read):
        assert {s.language for s in rows if s.category == "none"} == set(LANGUAGES)
        assert {s.language for s in rows if s.category == "illicit"} == set(LANGUAGES)


def test_numbers_drawn_anew_are_as_long_and_say_nothing() -> None:
    text = "Meter 004821 of house 7, read on 3 May 2024 and in 1998"
    drawn = {redrawn(text, Random(seed)) for seed in range(20)}
    assert len(drawn) == 20
    assert {re.sub(r"[0-9]", "", one) for one in drawn} == {re.sub(r"[0-9]", "", text)}
    assert all(re.search(r"Meter 0\d{5} of .* May 20\d\d and in 19\d\d$", one) for one in drawn)


def test_a_firm_s_questions_are_the_same_in_every_run() -> None:
    assert [s.text for part in NAMES for s in business(part)] == [
        s.text for part in NAMES for s in business(part)
    ]


def test_a_line_of_a_new_manner_weighs_the_same_however_often_it_is_written_out() -> None:
    rows = [Sentence("en", "none", text, "line", NUMBERED) for text in "abcd"]
    rows += [
        Sentence("en", "none", "e", "other", NUMBERED),
        Sentence("en", "none", "f", "f", "told"),
    ]
    found = fit_moderation.line_weights(rows, ["told"]).tolist()
    new = fit_moderation.NEW_OF[NUMBERED]
    assert (sum(found[:4]), found[4], found[5]) == (new, new, 1.0)


def test_reading_for_a_fit_tells_how_far_it_is_and_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_moderation, "AT_ONCE", 2)
    rows = [Sentence("en", "none", text, text) for text in ("ccc", "a", "bb")]
    lengths: Any = Lengths()
    found = fit_moderation.features(lengths, lengths, rows)
    assert found.flatten().tolist() == [3.0, 1.0, 2.0]
    told = [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["2 of 3 sentences read", "3 of 3 sentences read"]


class Lengths:
    """An encoder and a head that know of a text how long it is."""

    prefix = ""

    @property
    def tokenizer(self) -> Lengths:
        return self

    def ids(self, texts: list[str]) -> list[list[int]]:
        return [[0] * len(text) for text in texts]

    def features(self, _encoder: Lengths, ids: list[list[int]], _texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(len(one))] for one in ids])


def test_a_weight_for_a_manner_that_no_line_has_is_refused() -> None:
    assert weights_of([("odd", 3.0)], {"odd", "masks"}) == {"odd": 3.0}
    with pytest.raises(SystemExit, match="--heavier od: no line"):
        weights_of([("od", 3.0)], {"odd", "masks"})
