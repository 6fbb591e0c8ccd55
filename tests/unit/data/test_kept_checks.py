"""A check that goes on from what was kept says what a check of the whole file says."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from afina.data import kept_checks
from afina.data.check import CheckLimits, check_file
from afina.data.inspection import Inspection
from afina.data.kept_checks import KeptTallies

LIMITS = CheckLimits(min_rows=1, max_findings=50)


def row(number: int) -> str:
    answer = {"role": "assistant", "content": f"answer {number}"}
    return json.dumps({"messages": [{"role": "user", "content": f"question {number}"}, answer]})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first line of each part that was looked at; parts have ten lines."""
    found: list[int] = []
    run = Inspection.run

    def counting(self: Inspection, lines: Any, max_bad: int) -> Any:
        tally = run(self, lines, max_bad)
        found.append(tally.last_line - tally.rows - tally.blank_lines + 1)
        return tally

    monkeypatch.setattr(kept_checks, "_LINES", 10)
    monkeypatch.setattr(Inspection, "run", counting)
    return found


def both(path: Path, folder: Path) -> None:
    kept = check_file(path, LIMITS, None, kept=KeptTallies(folder))
    whole = check_file(path, LIMITS, None)
    assert dataclasses.asdict(kept) == dataclasses.asdict(whole)


def test_only_the_part_with_another_line_is_looked_at_again(
    tmp_path: Path, looked_at: list[int]
) -> None:
    path, kept = tmp_path / "rows.jsonl", KeptTallies(tmp_path / "kept")
    rows = [row(number) for number in range(45)]
    path.write_text("\n".join(rows) + "\n")
    assert check_file(path, LIMITS, None, kept=kept).rows_usable == 45
    assert looked_at == [1, 11, 21, 31, 41]
    looked_at.clear()
    rows[17] = "{}"
    path.write_text("\n".join(rows) + "\n")
    report = check_file(path, LIMITS, None, kept=kept)
    assert looked_at == [11]
    assert list(report.bad_lines) == [18]
    looked_at.clear()
    assert check_file(path, dataclasses.replace(LIMITS, min_rows=99), None, kept=kept).has_errors
    assert looked_at == [1, 11, 21, 31, 41], "other limits say something else of every part"


def test_what_older_code_found_is_looked_at_again(
    tmp_path: Path, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, code = tmp_path / "rows.jsonl", tmp_path / "code"
    path.write_text("\n".join(row(number) for number in range(20)) + "\n")
    (code / "rules").mkdir(parents=True)
    rule = code / "rules" / "plain.py"
    monkeypatch.setattr(kept_checks, "_CODE", (code,))
    for text in ("A = 1", "A = 2"):
        rule.write_text(text)
        kept_checks.code_hash.cache_clear()
        both(path, tmp_path / "kept")
        assert looked_at == [1, 11, 1], "each part, and the whole file beside"
        looked_at.clear()
        both(path, tmp_path / "kept")
        assert looked_at == [1], "the whole file beside alone"
        looked_at.clear()


def test_whatever_is_edited_the_report_is_that_of_the_whole_file(
    tmp_path: Path, looked_at: list[int]
) -> None:
    chance, path = random.Random(4), tmp_path / "rows.jsonl"
    rows = [row(number % 30) for number in range(60)]
    odd = ["", "{}", "nothing", row(3), row(999), '{"messages": []}', row(1) + "\r" + row(2), "\r"]
    for _ in range(40):
        rows[chance.randrange(60)] = chance.choice(odd)
        path.write_text("\n".join(rows) + "\n", newline="\n")
        both(path, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 6, "what is not of this file is let go"


def test_what_is_damaged_is_looked_at_again(tmp_path: Path, looked_at: list[int]) -> None:
    path, folder = tmp_path / "rows.jsonl", tmp_path / "kept"
    path.write_text("\n".join(row(number) for number in range(20)))
    both(path, folder)
    one, other = sorted(folder.iterdir())
    one.write_bytes(b"\xc1")
    other.unlink()
    looked_at.clear()
    both(path, folder)
    assert len(looked_at) > 2
    assert len(list(folder.iterdir())) == 2


def test_a_hopeless_file_is_given_up_where_the_whole_check_gives_it_up(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(["{}"] * 70))
    limits = dataclasses.replace(LIMITS, max_bad_rows=33)
    for _ in range(2):
        kept = check_file(path, limits, None, kept=KeptTallies(tmp_path / "kept"))
        assert dataclasses.asdict(kept) == dataclasses.asdict(check_file(path, limits, None))
        assert not kept.complete
