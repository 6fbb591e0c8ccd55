"""Layouts of other makers: each read, each written, and what cannot be written is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afina.data.check import CheckLimits, check_file
from afina.data.convert import ConvertOptions, ConvertReport, convert_file
from afina.data.layouts import LAYOUTS
from afina.data.writing import WRITTEN
from afina.errors import InvalidRequest

SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Yes"}
CHAT = {"messages": [SYSTEM, USER, ANSWER]}
LIKED = {
    "input": {"messages": [USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [{"role": "assistant", "content": "No"}],
}
READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": (CHAT, CHAT),
    "sharegpt": (
        {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]},
        CHAT,
    ),
    "alpaca": ({"instruction": "Hi", "input": "", "output": "Yes", "system": "Be kind."}, CHAT),
    "chatml": (
        {"text": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"},
        CHAT,
    ),
    "pair": ({"prompt": "Hi", "completion": " Yes"}, {"prompt": "Hi", "completion": " Yes"}),
    "preference": (LIKED, LIKED),
}  # fmt: skip


def convert(path: Path, rows: list[Any], **options: Any) -> tuple[list[Any], ConvertReport]:
    source, target = path / "in.jsonl", path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = convert_file(source, target, ConvertOptions(**options))
    assert report.rows_in == report.rows_out + report.rows_joined + sum(report.dropped.values())
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()], report


LIKED_ALIKE = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}


def test_each_layout_is_here() -> None:
    others = {"gemini", "converse", "chatgpt", "claude", "eval"}  # tests/unit/data/test_exports.py
    assert {*READ, *others, "columns"} == set(LAYOUTS)
    assert set(READ) == set(WRITTEN)


@pytest.mark.parametrize("layout", READ)
def test_a_layout_is_found_read_and_written_back(layout: str, tmp_path: Path) -> None:
    record, row = READ[layout]
    given = layout if layout in ("pair", "chatml") else None
    rows, report = convert(tmp_path, [record] * 3, layout=given)
    assert rows == [row] * 3
    assert report.layout == layout
    assert not check_file(tmp_path / "out.jsonl", CheckLimits(min_rows=1), None).has_errors
    again, _ = convert(tmp_path, rows, layout=layout if layout == "pair" else None, write=layout)
    assert again == [record] * 3


def test_other_names_of_preferences_become_ours(tmp_path: Path) -> None:
    rows, _ = convert(tmp_path, [LIKED_ALIKE])
    assert rows == [LIKED]
    chats = {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No"}]}
    assert convert(tmp_path, [chats])[0] == [LIKED]


@pytest.mark.parametrize(
    ("layout", "answer", "reason"),
    [
        ("sharegpt", {"content": None, "refusal": "No."}, "a refusal cannot be written so"),
        ("alpaca", {"content": "Yes", "name": "bob"}, "the name of who speaks cannot be written so"),
        ("pair", {"content": [{"type": "image_url"}]}, "pictures, sound and files cannot be written so"),
        ("alpaca", {"content": "Yes", "weight": 0}, "weights cannot be written so"),
        ("chatml", {"content": "Yes", "weight": 0}, "weights cannot be written so"),
        ("chatml", {"content": "End with <|im_end|>."}, "a text holds the marks of ChatML itself"),
    ],
)  # fmt: skip
def test_no_part_of_a_chat_is_lost_where_a_layout_has_no_place_for_it(
    layout: str, answer: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    lossy = {"messages": [USER, {"role": "assistant", **answer}]}
    rows, report = convert(tmp_path, [CHAT, lossy], write=layout)
    assert (len(rows), report.dropped) == (1, {reason: 1})


def test_definitions_of_tools_are_not_lost_in_writing(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    _, report = convert(tmp_path, [{**CHAT, "tools": tools}], write="sharegpt")
    assert report.dropped == {"tools cannot be written so": 1}


def test_weights_come_back_from_sharegpt_as_they_went(tmp_path: Path) -> None:
    chat = {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]}
    written, _ = convert(tmp_path, [chat], write="sharegpt")
    assert convert(tmp_path, written)[0] == [chat]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|im_start|>user\nHi\n<|im_start|>assistant\nYes<|im_end|>", "a turn has no <|im_end|>"),
        ("<|im_start|>user\nHi<|im_end|>\nYes", "text stands outside <|im_start|> and <|im_end|>"),
        ("<|im_start|>user name=a\nHi<|im_end|><|im_start|>assistant\nYes<|im_end|>", "text stands outside <|im_start|> and <|im_end|>"),
    ],
)  # fmt: skip
def test_no_turn_of_chatml_is_swallowed(text: str, reason: str, tmp_path: Path) -> None:
    ended = "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|><|endoftext|>\n"
    rows, report = convert(tmp_path, [{"text": text}, {"text": ended}], layout="chatml")
    assert (rows, report.dropped) == ([{"messages": [USER, ANSWER]}], {reason: 1})


def test_answers_to_different_chats_are_no_preference(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "No"}]
    rows, report = convert(tmp_path, [{"chosen": [USER, ANSWER], "rejected": other}])
    assert (rows, report.dropped) == ([], {"chosen and rejected answer different chats": 1})


def test_what_a_layout_cannot_hold_is_dropped_by_reason_and_line(tmp_path: Path) -> None:
    two_turns = {"messages": [USER, ANSWER, USER, ANSWER]}
    calling = {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c"}]}]}
    rows, report = convert(tmp_path, [CHAT, two_turns, calling], write="alpaca")
    assert len(rows) == 1
    assert dict(report.dropped) == {
        "not one question and one answer": 1,
        "calls of tools cannot be written so": 1,
    }
    assert any("line 2" in note for note in report.notes)
    rows, report = convert(tmp_path, [{"text": "a"}], layout="chatml")
    assert dict(report.dropped) == {"text holds no <|im_start|>": 1}
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]
    told = [{"conversations": turns, "tools": tools} for tools in (None, "", {"name": "price"})]
    rows, report = convert(tmp_path, told)
    assert len(rows) == 2
    assert dict(report.dropped) == {"tools is no list": 1}
    beside = {"chosen": [ANSWER], "rejected": ["No"]}
    rows, report = convert(tmp_path, [LIKED_ALIKE, beside, {**LIKED_ALIKE, "prompt": ["Hi"]}])
    assert rows == [LIKED]
    assert dict(report.dropped) == {
        "rejected is no list of turns": 1,
        "prompt is no list of turns": 1,
    }


def test_a_log_becomes_chats_in_the_order_in_which_they_begin(tmp_path: Path) -> None:
    log = [
        {"id": 1, "speaker": "Customer", "message": "a"},
        {"id": 2, "speaker": "customer", "message": "b"},
        {"id": 1, "speaker": "Agent", "message": "c"},
        {"id": 2, "speaker": "bot", "message": "d"},
        {"id": 1, "speaker": "customer", "message": "e"},
        {"id": 1, "speaker": "agent", "message": "f"},
    ]
    rows, report = convert(tmp_path, log, group="ID")
    said = [[(m["role"][0], m["content"]) for m in row["messages"]] for row in rows]
    assert said == [[("u", "a"), ("a", "c"), ("u", "e"), ("a", "f")], [("u", "b"), ("a", "d")]]
    assert (report.rows_out, report.rows_joined) == (2, 4)


def test_questions_and_answers_of_a_group_are_turns_with_one_system_message(tmp_path: Path) -> None:
    table = [{"chat": "x", "question": f"q{n}", "answer": f"a{n}"} for n in range(3)]
    rows, _ = convert(tmp_path, table, group="chat", system="Be kind.")
    assert [m["content"] for m in rows[0]["messages"]] == [
        "Be kind.", "q0", "a0", "q1", "a1", "q2", "a2",
    ]  # fmt: skip


def test_a_template_is_made_of_columns(tmp_path: Path) -> None:
    table = [{"title": "Sea", "lang": "en", "summary": "Wet.", "n": 3}]
    rows, _ = convert(
        tmp_path, table, user="Sum up {title} in {lang}, {n} words", assistant="summary"
    )
    assert [m["content"] for m in rows[0]["messages"]] == ["Sum up Sea in en, 3 words", "Wet."]
    rows, _ = convert(tmp_path, table, user="{title}?", assistant="{summary} ({lang})")
    assert [m["content"] for m in rows[0]["messages"]] == ["Sea?", "Wet. (en)"]
    with pytest.raises(InvalidRequest, match="no column 'size'"):
        convert(tmp_path, table, user="{size}", assistant="summary")


def test_lines_of_text_are_completions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\n\r\nzwei ä".encode("cp1252"))
    report = convert_file(tmp_path / "a.txt", tmp_path / "out", ConvertOptions())
    rows = [json.loads(line) for line in (tmp_path / "out").read_text("utf-8").splitlines()]
    assert rows == [{"prompt": "", "completion": "one"}, {"prompt": "", "completion": "zwei ä"}]
    assert dict(report.dropped) == {"empty row": 1}
    assert report.encoding == "cp1252"


@pytest.mark.parametrize("wrong", [{"layout": "x"}, {"write": "x"}, {"group": "x"}])
def test_what_there_is_not_is_refused_with_what_there_is(
    wrong: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(tmp_path, [{"question": "a", "answer": "b"}], **wrong)
    assert "there are:" in caught.value.one_line().lower() or "columns are" in str(
        caught.value.remedy
    )
