"""The usage journal."""

from __future__ import annotations

from pathlib import Path

import msgspec

from afina.serving.journal import Journal
from afina.serving.protocol import UsageRecord


def record(name: str) -> UsageRecord:
    return UsageRecord(name, 1.0, "base", None, 1, 0, 2, "finished", {})


def test_records_stand_in_the_file_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "engine" / "usage.jsonl")
    for name in ("a", "b"):
        journal.append(record(name))
        last = (tmp_path / "engine" / "usage.jsonl").read_bytes().splitlines()[-1]
        assert msgspec.json.decode(last, type=UsageRecord).request_id == name


def test_a_journal_that_was_renamed_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    journal = Journal(path)
    journal.append(record("a"))
    path.rename(tmp_path / "old.jsonl")
    journal.append(record("b"))
    assert b'"b"' in path.read_bytes()
    assert b'"b"' not in (tmp_path / "old.jsonl").read_bytes()
