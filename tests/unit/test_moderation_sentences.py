"""The sentences of the moderation model: those it is tested on are no echo of those it learned."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from benchmarks.moderation_data import (
    LANGUAGES,
    PROBE,
    TEST,
    plain_sentences,
    sentences_of_the_test,
    training_sentences,
)

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
    for sentence in (*sentences_of_the_test(), *sentences_of_the_test(PROBE)):
        own = runs(sentence.text)
        shared = Counter(place for run in own for place in places[run])
        for place, count in shared.most_common(20):
            assert count < NEAR * len(own | trained[place]), sentence.text


@pytest.mark.parametrize(("folder", "least"), [(TEST, 900), (PROBE, 120)], ids=["test", "probe"])
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
