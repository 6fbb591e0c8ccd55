"""What a machine mends: the rule no longer fires, everything else stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afina.data.check import CheckLimits, check_file
from afina.data.fixes import FIXES, OF_THE_FILE, fix_file
from afina.data.kinds import RowKind
from afina.data.rules.examples import EXAMPLES
from afina.errors import InvalidRequest

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Yes"}
CALL = {"id": "c", "function": {"name": "f", "arguments": {"a": "é"}}}
GOOD = '{"messages": [{"role": "user",  "content": "é"}, {"role":"assistant","content":"b"}]}'
BAD = {
    "unknown-role": EXAMPLES["unknown-role"].bad,
    "old-preference-key": EXAMPLES["old-preference-key"].bad,
    "unknown-row-key": EXAMPLES["unknown-row-key"].bad,
    "unknown-message-key": EXAMPLES["unknown-message-key"].bad,
    "bad-weight": json.dumps({"messages": [USER, {**ANSWER, "weight": True}]}),
    "bad-tool-calls": json.dumps({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}),
    "missing-prompt": EXAMPLES["missing-prompt"].bad,
    "completion-starts-bare": '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": " d"}',
    "parallel-flag-without-effect": json.dumps(
        {"messages": [USER, ANSWER], "parallel_tool_calls": False}
    ),
    "blank-lines": f"{GOOD}\n\n",
    "duplicate-row": f"{GOOD}\n{GOOD}",
}


def test_each_fix_has_its_example_here() -> None:
    assert set(BAD) == {*FIXES, *OF_THE_FILE}


@pytest.mark.parametrize("code", BAD)
def test_after_a_fix_its_rule_is_silent_and_the_changes_are_counted(
    code: str, tmp_path: Path
) -> None:
    path, target = tmp_path / "f", tmp_path / "mended"
    path.write_text(BAD[code], encoding="utf-8")
    before = check_file(path, CheckLimits(min_rows=1), None)
    assert code in before.counts
    report = fix_file(path, target)
    after = check_file(target, CheckLimits(min_rows=1), None)
    assert code not in after.counts, dict(after.counts)
    assert report.changes[code] >= 1
    assert report.rows_in == report.rows_out + report.rows_dropped
    assert path.read_text(encoding="utf-8") == BAD[code]


def test_what_needs_no_fix_is_copied_byte_for_byte(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "mended"
    content = f"{GOOD}\n{{not json\n[1]\n".encode() + b"\xff\xfe\n"
    path.write_bytes(content)
    report = fix_file(path, target, RowKind.CHAT)
    assert target.read_bytes() == content
    assert (report.rows_in, report.rows_changed, dict(report.changes)) == (4, 0, {})


def test_no_fix_takes_out_a_text_that_stands_under_a_wrong_name(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "mended"
    chat = {"messages": [USER, ANSWER]}
    pair, question = {"prompt": "a", "completion": "b"}, {"role": "user", "contents": "Hi"}
    rows = [chat, {"message": [USER, ANSWER]}, pair, {"messages": [question, ANSWER]}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = fix_file(path, target)
    assert target.read_text("utf-8").rstrip("\n") == path.read_text("utf-8")
    assert (report.rows_changed, report.rows_dropped) == (0, 0)


def test_the_file_that_was_checked_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(GOOD)
    with pytest.raises(InvalidRequest, match="overwrite"):
        fix_file(path, path)
    assert path.read_text() == GOOD
