"""The training rows that a job could hardly learn, with what the user says in them.

They are for the owner of the rows alone, on a page; no log and no finding holds their text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from afina.data.content.texts import row_texts
from afina.data.kinds import RowKind, kind_of_row
from afina.domain.accounts import Caller
from afina.domain.jobs import Job
from afina.errors import AfinaError
from afina.service.files import get_file, open_file
from afina.service.platform import Platform

MOST: Final = 20
_FILE: Final = "row_losses.csv"
_SHOWN: Final = 160


@dataclass(frozen=True)
class SuspectRow:
    """A line of the training file, its loss in the first and the last epoch, how far that lies
    above rows like it, and the beginnings of what is asked in it and answered."""

    line: int
    first: float
    last: float
    score: float
    asked: str
    answered: str


def suspect_rows(platform: Platform, caller: Caller, job: Job) -> list[SuspectRow]:
    """The worst first; none where the job has no such record. Where the training file is gone, the
    rows' texts are empty."""
    try:
        named = [get_file(platform, caller, id_) for id_ in job.result_files]
        found = next((file for file in named if file.filename.endswith(_FILE)), None)
        if found is None:
            return []
        with open_file(platform, caller, found.id)[1] as handle:
            text = io.TextIOWrapper(handle, encoding="utf-8")
            rows = [row for row in csv.DictReader(text) if row.get("suspect") == "1"]
        rows.sort(key=_score, reverse=True)
    except (AfinaError, ValueError, LookupError):
        return []
    said: dict[int, tuple[str, str]] = {}
    with suppress(AfinaError):
        said = _said(platform, caller, job, {int(row["line"]) for row in rows[:MOST]})
    return [
        SuspectRow(
            int(row["line"]),
            float(row["first_epoch_loss"] or 0),
            float(row["last_epoch_loss"] or 0),
            _score(row),
            *said.get(int(row["line"]), ("", "")),
        )
        for row in rows[:MOST]
    ]


def _score(row: Mapping[str, str]) -> float:
    # files of earlier versions have no score; there the loss alone decided
    return float(row.get("score") or row["last_epoch_loss"] or 0)


def _said(
    platform: Platform, caller: Caller, job: Job, lines: set[int]
) -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    if not lines:
        return found
    with open_file(platform, caller, job.training_file)[1] as handle:
        for number, line in enumerate(handle, 1):
            if number in lines:
                found[number] = beginnings(line)
    return found


def beginnings(line: bytes) -> tuple[str, str]:
    """What a line of a training file asks and answers, as far as a table has room for it."""
    try:
        row = json.loads(line)
        texts = row_texts(kind_of_row(row) or RowKind.CHAT, row)
    except (ValueError, AttributeError):
        texts = None
    if texts is None:
        return "", ""
    return texts.asked[:_SHOWN], (texts.answer or "")[:_SHOWN]
