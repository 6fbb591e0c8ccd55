"""Moderation without a network: pieces, signals, and reports on files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from afina.data.moderation.categories import CATEGORIES, flagged, with_parents
from afina.data.moderation.pieces import (
    PIECE_CHARACTERS,
    WINDOW_CHARACTERS,
    distinct,
    joined,
    pieces_of,
    windows_of,
)
from afina.data.moderation.report import (
    ModerationReport,
    Rules,
    has_texts,
    moderate_file,
    texts_of,
    write_others,
)
from afina.data.moderation.words import WORDS, signals
from afina.errors import InvalidRequest

BAD = "a bad sentence"
WARN = Rules("warn", {}, 0.5)


def judge(texts: Sequence[str]) -> list[Mapping[str, float]]:
    return [{"hate": 0.9} if BAD in text else {} for text in texts]


def chat(*contents: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text} for text in contents]})


def report_on(tmp_path: Path, rules: Rules, *lines: str) -> ModerationReport:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return moderate_file(path, judge, "a judge", rules)


def test_a_category_is_never_below_one_that_it_contains() -> None:
    scores = [0.0] * len(CATEGORIES)
    scores[CATEGORIES.index("hate/threatening")] = 0.8
    made = dict(zip(CATEGORIES, with_parents(scores), strict=True))
    assert (made["hate"], made["violence"], made["harassment"]) == (0.8, 0.8, 0.0)


def test_a_category_is_flagged_from_its_own_threshold_on() -> None:
    scores = [0.6] * len(CATEGORIES)
    assert "sexual" not in flagged(scores, {"sexual": 0.7})
    assert flagged(scores, {"sexual": 0.7})["hate"] == 0.6


def test_no_piece_is_too_long_and_no_word_is_lost() -> None:
    text = " ".join(f"Word{number} and more." for number in range(200)) + " " + "x" * 1000
    pieces = pieces_of(text)
    assert all(len(piece) <= PIECE_CHARACTERS for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_the_worst_piece_of_a_text_counts() -> None:
    quiet, loud = [0.1] * len(CATEGORIES), [0.9] * len(CATEGORIES)
    assert [row[0] for row in joined([[0, 1], [2]], [quiet, loud, quiet])] == [0.9, 0.1]


def test_a_disguised_word_is_a_signal_too() -> None:
    insult = list(WORDS).index("insult")
    assert signals("what an 1d10t")[insult] > 0
    assert signals("what an idéa")[insult] == 0


def test_a_report_names_line_and_message_and_never_the_text(tmp_path: Path) -> None:
    report = report_on(tmp_path, WARN, chat("fine"), "", chat("fine", BAD))
    assert [(m.line, m.where, m.category) for m in report.messages] == [(3, "messages[1]", "hate")]
    assert (report.rows, report.flagged_rows, report.refused) == (2, 1, False)
    assert BAD not in repr(report)


def test_quarantine_leaves_rows_out_and_counts_them(tmp_path: Path) -> None:
    rules = Rules("warn", {"hate": "quarantine"}, 0.5)
    report = report_on(tmp_path, rules, chat(BAD), chat("fine"))
    assert (report.quarantined_lines, report.left_out, report.refused) == ((1,), 1, False)


def test_a_message_is_named_by_the_category_whose_policy_is_strictest() -> None:
    found = {"violence": 0.9, "sexual/minors": 0.6}
    assert Rules("warn", {"sexual/minors": "block"}, 0.5).named(found) == "sexual/minors"
    assert WARN.named(found) == "violence"
    assert WARN.named({"harassment": 0.9, "harassment/threatening": 0.9}) == (
        "harassment/threatening"
    )


def test_lines_that_are_named_stand_once_and_those_that_count_alone(tmp_path: Path) -> None:
    rules = Rules("block", {}, 0.5)
    report = report_on(tmp_path, rules, chat(BAD, BAD), chat("fine"), chat(BAD), chat(BAD))
    assert (report.first_lines(10), report.first_lines(2)) == ("1, 3, 4", "1, 3, …")
    assert report_on(tmp_path, WARN, chat(BAD)).first_lines(10, counted=True) == ""


@pytest.mark.parametrize(("bad", "refused"), [(1, False), (2, True)])
def test_a_file_is_refused_above_the_share_alone(tmp_path: Path, bad: int, refused: bool) -> None:
    rules = Rules("block", {}, 0.5)
    lines = [chat(BAD)] * bad + [chat("fine")]
    assert report_on(tmp_path, rules, *lines).refused is refused


def test_progress_ends_at_the_file_s_size_and_every_flagged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\r\n".join([chat("fine"), chat(BAD), chat(BAD, BAD)]), newline="")
    told: list[tuple[int, int]] = []
    lines: list[int] = []
    moderate_file(path, judge, "a judge", WARN, lambda *now: told.append(now), lines.append)
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert lines == [2, 3]


def test_every_text_of_a_row_is_looked_at() -> None:
    parts = [{"type": "text", "text": "a"}]
    row = {
        "input": {"messages": [{"role": "user", "content": parts}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
        "prompt": "d",
        "completion": "e",
    }
    assert sorted(text for _, text in texts_of(json.dumps(row).encode())) == list("abcde")


@pytest.mark.parametrize("raw", [b"[1, 2]", b"no json", b'{"messages": 3}', b"\xff\xfe"])
def test_what_is_no_row_has_no_texts(raw: bytes) -> None:
    assert list(texts_of(raw)) == []


def test_what_is_said_to_tools_is_looked_at() -> None:
    calls = [
        {"type": "function", "function": {"name": "f", "arguments": '{"a": ["b", 1], "c": "d"}'}},
        {"type": "function", "function": {"name": "f", "arguments": "no json"}},
        {"type": "function", "function": {"name": "f", "arguments": "[" * 5000}},
        {"type": "function", "function": {"name": "f", "arguments": "{}"}},
        "no call",
    ]
    old = {"role": "assistant", "function_call": {"name": "f", "arguments": {"x": "y"}}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": calls}, old]}
    assert list(texts_of(json.dumps(row).encode())) == [
        ("messages[0].tool_calls[0]", "b\nd"),
        ("messages[0].tool_calls[1]", "no json"),
        ("messages[0].tool_calls[2]", "[" * 5000),
        ("messages[1].function_call", "y"),
    ]


def test_a_refusal_is_looked_at_because_it_is_learned() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    said = [{"role": "assistant", "refusal": "c"}, {"role": "assistant", "content": parts}]
    assert list(texts_of(json.dumps({"messages": said}).encode())) == [
        ("messages[0].refusal", "c"),
        ("messages[1].content[0]", "a"),
        ("messages[1].content[1]", "b"),
    ]


def test_rows_that_nobody_judged_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    report = report_on(tmp_path, WARN, chat("fine"), "", '{"id": 1}', "no json", chat(BAD))
    assert (report.rows, report.unread_rows, report.first_unread) == (4, 2, 3)
    assert report.flagged_rows == 1


@pytest.mark.parametrize(
    ("content", "yes"), [("", False), ("[1]\n{}\n\n", False), (f"no json\n{chat('')}\n", True)]
)
def test_a_file_has_texts_where_any_line_has_one(content: str, yes: bool, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(content)
    assert has_texts(tmp_path / "f") is yes


def test_the_other_lines_are_written_byte_for_byte_and_never_over_their_file(
    tmp_path: Path,
) -> None:
    path, target = tmp_path / "f", tmp_path / "clean"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\xff\rc\n\nd")
    write_others(path, target, {2, 5})
    assert target.read_bytes() == b"\xef\xbb\xbfa\r\nc\n\n"
    with pytest.raises(InvalidRequest, match="would overwrite"):
        write_others(path, path, {2})
    assert path.read_bytes().endswith(b"d")


@pytest.mark.parametrize(
    "text",
    [
        "A sentence of some length stands here. " * 3000,
        "word " * 30_000,
        "x" * 50_001,
        "",
        "short",
        "One.\n" * 20_000,
    ],
)
def test_windows_hold_all_of_a_text_and_are_cut_where_its_pieces_end(text: str) -> None:
    windows = windows_of(text)
    assert "".join(windows) == text
    assert all(len(window) <= WINDOW_CHARACTERS for window in windows)
    if " " in text:
        assert all(window[-1].isspace() for window in windows[:-1])


def test_a_piece_that_stands_twice_is_read_once_and_counts_for_each_text() -> None:
    flat, where = distinct([["a", "b", "a"], ["b"], ["c"]])
    assert (flat, where) == (["a", "b", "c"], [[0, 1, 0], [1], [2]])
    low, high = [0.1] * len(CATEGORIES), [0.2] * len(CATEGORIES)
    found = joined(where, [low, high, low])
    assert found == [high, high, low]
