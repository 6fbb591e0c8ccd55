"""Suspects are rows far above rows like them, whatever else the file holds."""

from __future__ import annotations

import csv

import numpy as np
from numpy.typing import NDArray

from afina.training.row_losses import RowLosses

LABELS, TALES = 200, 100


def prompt(row: int) -> NDArray[np.int32]:
    """Rows that ask for a label and rows that ask for a tale, each about something of its own."""
    kind = [11, 12, 13, 14] if row < LABELS else [21, 22, 23, 24, 25]
    return np.array([*kind, 1000 + row % 37, 2000 + row % 11], dtype=np.int32)


def losses() -> RowLosses:
    """Labels are all but learned, tales stay hard."""
    source = np.random.default_rng(3)
    found = RowLosses(LABELS + TALES)
    hard = np.concatenate([source.exponential(0.01, LABELS), source.normal(3.0, 0.3, TALES)])
    found.note(1, dict(enumerate(hard + 1.0)))
    found.note(2, dict(enumerate(hard)))
    return found


def best(found: RowLosses, count: int) -> list[int]:
    scores = np.nan_to_num(found.scores(prompt), nan=-np.inf)
    return sorted(np.argsort(-scores)[:count].tolist())


def test_a_wrong_label_is_found_among_tales_that_are_harder_than_it() -> None:
    found = losses()
    found.note(2, {17: 1.6, 140: 2.4, 250: 6.5})
    assert best(found, 3) == [17, 140, 250]
    assert np.flatnonzero(found.scores(prompt) > 3.5).tolist() == [17, 140, 250]


def test_rows_that_are_all_learned_are_no_suspects_for_being_unequal() -> None:
    found = losses()
    assert not (found.scores(prompt) > 3.5).any()
    found.note(2, {3: 0.2})  # twenty times its neighbours, and yet learned
    assert not (found.scores(prompt) > 3.5).any()


def test_a_row_without_loss_has_no_score_and_a_single_row_nothing_to_compare_with() -> None:
    found = losses()
    found.last[5] = np.nan
    scores = found.scores(prompt)
    assert np.isnan(scores[5])
    assert np.isfinite(np.delete(scores, 5)).all()
    lines = np.arange(LABELS + TALES) + 1
    told = list(csv.DictReader(found.csv(lines, lines, prompt).decode().splitlines()))
    assert (told[5]["last_epoch_loss"], told[5]["suspect"], told[5]["score"]) == ("", "0", "")

    one = RowLosses(1)
    one.note(1, {0: 4.0})
    assert np.isnan(one.scores(prompt)).all()
    assert np.isnan(RowLosses(2).scores(prompt)).all()
