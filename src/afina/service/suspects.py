"""The training rows that a job could hardly learn, with what the user says in them.

They are for the owner of the rows alone, on a page; no log and no finding holds their text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
    """A line of the training file, its loss in the first and the last epoch, and its beginning."""

    line: int
    first: float
    last: float
    text: str


def suspect_rows(platform: Platform, caller: Caller, job: Job) -> list[SuspectRow]:
    """The worst first; none where the job has no such record or its files are gone."""
    try:
        named = [get_file(platform, caller, id_) for id_ in job.result_files]
        found = next((file for file in named if file.filename.endswith(_FILE)), None)
        if found is None:
            return []
        with open_file(platform, caller, found.id)[1] as handle:
            text = io.TextIOWrapper(handle, encoding="utf-8")
            rows = [row for row in csv.DictReader(text) if row.get("suspect") == "1"]
        rows.sort(key=_last, reverse=True)
        said = _said(platform, caller, job, {int(row["line"]) for row in rows[:MOST]})
    except (AfinaError, ValueError, LookupError):
        return []
    return [
        SuspectRow(
            int(row["line"]),
            float(row["first_epoch_loss"] or 0),
            _last(row),
            said.get(int(row["line"]), ""),
        )
        for row in rows[:MOST]
    ]


def _last(row: Mapping[str, str]) -> float:
    return float(row["last_epoch_loss"] or 0)


def _said(platform: Platform, caller: Caller, job: Job, lines: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    if not lines:
        return found
    with open_file(platform, caller, job.training_file)[1] as handle:
        for number, line in enumerate(handle, 1):
            if number in lines:
                found[number] = _beginning(line)
    return found


def _beginning(line: bytes) -> str:
    try:
        messages = json.loads(line)["messages"]
        users = [m["content"] for m in messages if m["role"] == "user"]
        return str(users[0])[:_SHOWN] if users else ""
    except (ValueError, LookupError, TypeError):
        return ""
