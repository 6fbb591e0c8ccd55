"""Chats of other services become rows; what no row can hold is refused by its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afina.data.check import CheckLimits, check_file
from afina.data.convert import ConvertOptions, ConvertReport, convert_file, convert_frame
from afina.data.hints import conversion_hint
from afina.errors import InvalidRequest

SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Yes"}
CHAT = {"messages": [SYSTEM, USER, ANSWER]}


def convert(folder: Path, records: list[Any], **options: Any) -> tuple[list[Any], ConvertReport]:
    """What the records become, in a list as exports are."""
    source, target = folder / "conversations.json", folder / "rows.jsonl"
    source.write_text(json.dumps(records), encoding="utf-8")
    report = convert_file(source, target, ConvertOptions(**options))
    assert report.rows_in == report.rows_out + sum(report.dropped.values())
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()], report


def node(parent: str | None, said: Any = None, role: str = "user", **more: Any) -> dict[str, Any]:
    message = None
    if said is not None:
        content = said if isinstance(said, dict) else {"content_type": "text", "parts": [said]}
        message = {"author": {"role": role}, "content": content, "recipient": "all", **more}
    return {"message": message, "parent": parent, "children": []}


def conversation(*nodes: tuple[str, dict[str, Any]], leaf: str | None = None) -> dict[str, Any]:
    return {"title": "t", "mapping": dict(nodes), "current_node": leaf or nodes[-1][0]}


GEMINI: dict[str, Any] = {
    "systemInstruction": {"role": "system", "parts": [{"text": "Be "}, {"text": "kind."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"text": "Yes"}]},
    ],
}
CONVERSE = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "Be kind."}],
    "messages": [
        {"role": "user", "content": [{"text": "Hi"}]},
        {"role": "assistant", "content": [{"text": "Yes"}]},
    ],
}
CLAUDE = {
    "uuid": "u",
    "chat_messages": [
        {"sender": "human", "text": "Hi", "content": [{"type": "text", "text": "Hi"}], "files": []},
        {
            "sender": "assistant",
            "text": "Yes",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes"}],
        },
    ],
}
CHATGPT = conversation(
    ("root", node(None)),
    ("sys", node("root", "", "system")),
    ("about", node("sys", {"content_type": "user_editable_context", "user_profile": "p"})),
    ("q", node("about", "Hi")),
    ("other", node("q", "No", "assistant")),
    ("think", node("q", {"content_type": "thoughts", "thoughts": []}, "assistant")),
    ("a", node("think", "Yes", "assistant")),
)


@pytest.mark.parametrize(
    ("layout", "record", "row"),
    [
        ("gemini", GEMINI, CHAT),
        ("converse", CONVERSE, CHAT),
        ("converse", {"system": "Be kind.", "messages": [USER, ANSWER]}, CHAT),
        ("chatgpt", CHATGPT, {"messages": [USER, ANSWER]}),
        ("claude", CLAUDE, {"messages": [USER, ANSWER]}),
        ("eval", {"input": [SYSTEM, USER], "ideal": "Yes"}, CHAT),
        ("eval", {"input": "Hi", "ideal": ["Yes"]}, {"messages": [USER, ANSWER]}),
        (
            "sharegpt",
            {"id": 1, "dialog": [{"speaker": "human", "text": "Hi"}, {"speaker": "ai", "text": "Yes"}]},
            {"messages": [USER, ANSWER]},
        ),
    ],
)  # fmt: skip
def test_a_record_of_another_service_is_found_and_read(
    layout: str, record: Any, row: Any, tmp_path: Path
) -> None:
    rows, report = convert(tmp_path, [record] * 2)
    assert report.layout == layout
    assert rows == [row] * 2
    assert not check_file(tmp_path / "rows.jsonl", CheckLimits(min_rows=1), None).has_errors


def test_calls_of_functions_of_gemini_become_calls_of_tools_with_their_answers(
    tmp_path: Path,
) -> None:
    call = {"functionCall": {"name": "price", "args": {"of": "tea"}}}
    back = {"functionResponse": {"name": "price", "response": {"eur": 2}}}
    schema = {"type": "OBJECT", "properties": {"of": {"type": "STRING"}}}
    record = {
        "contents": [
            {"role": "user", "parts": [{"text": "Tea?"}]},
            {"role": "model", "parts": [call, call]},
            {"role": "user", "parts": [back]},
            {"role": "user", "parts": [back]},
            {"role": "model", "parts": [{"text": "2"}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "price", "parameters": schema}]}],
    }
    (row,), _ = convert(tmp_path, [record])
    asked, first, second = row["messages"][1:4]
    assert [one["id"] for one in asked["tool_calls"]] == ["call_0", "call_1"]
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == {"of": "tea"}
    assert [first["tool_call_id"], second["tool_call_id"]] == ["call_0", "call_1"]
    assert json.loads(first["content"]) == {"eur": 2}
    assert row["tools"][0]["function"]["parameters"]["properties"]["of"] == {"type": "string"}
    assert not check_file(tmp_path / "rows.jsonl", CheckLimits(min_rows=1), None).has_errors


def test_the_branch_that_was_seen_last_is_read_and_a_circle_ends(tmp_path: Path) -> None:
    nodes = (
        ("q", node(None, "Hi")),
        ("no", node("q", "No", "assistant")),
        ("yes", node("q", "Yes", "assistant")),
    )
    chosen = [conversation(*nodes, leaf="no"), conversation(*nodes, leaf="lost")]
    rows, _ = convert(tmp_path, chosen)
    assert [row["messages"][1]["content"] for row in rows] == ["No", "Yes"]
    circle = conversation(("q", node("a", "Hi")), ("a", node("q", "Yes", "assistant")))
    assert convert(tmp_path, [circle])[0] == [{"messages": [USER, ANSWER]}]


def test_of_claudes_branches_the_last_is_read_or_the_one_that_the_export_names(
    tmp_path: Path,
) -> None:
    def turn(id: str, parent: str | None, sender: str, text: str) -> dict[str, Any]:
        return {"uuid": id, "parent_message_uuid": parent, "sender": sender, "text": text}

    turns = [
        turn("q", "root", "human", "Hi"),
        turn("a", "q", "assistant", "No"),
        turn("b", "q", "assistant", "Yes"),
    ]
    other = {"chat_messages": turns, "current_leaf_message_uuid": "a"}
    edited = {"chat_messages": [turn("first", "root", "human", "Ho"), turns[0], turns[2]]}
    rootless = {"chat_messages": [turn("q", None, "human", "Hi"), *turns[1:]]}
    rows, _ = convert(tmp_path, [{"chat_messages": turns}, other, edited, rootless])
    said = [[message["content"] for message in row["messages"]] for row in rows]
    assert said == [["Hi", "Yes"], ["Hi", "No"], ["Hi", "Yes"], ["Hi", "Yes"]]
    lost = {"chat_messages": [turns[0], turn("b", "gone", "assistant", "Yes")]}
    circle = {"chat_messages": [turn("q", "b", "human", "Hi"), turns[2]]}
    without = {
        "chat_messages": [turn("q", None, "human", "Hi"), turn("b", None, "assistant", "Yes")]
    }
    rows, _ = convert(tmp_path, [lost, circle, without])
    assert rows == [{"messages": [USER, ANSWER]}] * 3


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            conversation(("q", node(None, {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "what?"]}))),
            "a message holds what is no text (image_asset_pointer)",
        ),
        (
            conversation(("q", node(None, "Hi")), ("t", node("q", "print()", "assistant", recipient="python"))),
            "a conversation with steps of a built-in tool, which no row can hold",
        ),
        (conversation(("r", node(None))), "a conversation in which nobody says anything"),
        (
            {"chat_messages": [{"sender": "human", "text": "Hi", "attachments": [{"file_name": "a"}]}]},
            "a message has files with it, which no row can hold",
        ),
        ({"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]}, "a message holds what is no text (inlineData)"),
        ({"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f"}}]}]}, "a functionResponse answers no functionCall before it"),
        ({"contents": [{"role": "user", "parts": "Hi"}]}, "parts is no list of parts"),
        (
            {"contents": [{"role": "user", "parts": [{"text": "this?", "inlineData": {"data": ""}}]}]},
            "a part is two things at once (text, inlineData)",
        ),
        ({**GEMINI, "tools": ["search"]}, "tools is no list of parts"),
        ({**GEMINI, "tools": {"googleSearch": {}}}, "a tool that is no function (googleSearch)"),
        (
            conversation(("q", node(None, {"content_type": ["text"], "parts": ["Hi"]}))),
            "a message holds what is no text",
        ),
        ({"contents": [{"role": "user", "parts": [{"my secret words": 1}]}]}, "a message holds what is no text"),
        ({"system": [{"image": {}}], "messages": [USER, ANSWER]}, "a message holds what is no text (image)"),
        ({"system": "Be kind.", "messages": [SYSTEM, USER, ANSWER]}, "a system text stands beside messages that begin with one"),
        ({"input": [USER], "ideal": ["Yes", "No"]}, "ideal lists several answers, and a row has one"),
    ],
)  # fmt: skip
def test_what_no_row_can_hold_is_refused_by_its_kind(
    record: Any, reason: str, tmp_path: Path
) -> None:
    _, report = convert(tmp_path, [record])
    assert dict(report.dropped) == {reason: 1}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (CHATGPT, {"mapping": [], "current_node": "x"}, "mapping is no object of messages"),
        (CLAUDE, {"chat_messages": "Hi"}, "chat_messages is no list of turns"),
        (GEMINI, {"contents": "Hi"}, "contents is no list of turns"),
    ],
)
def test_among_conversations_one_without_turns_is_dropped_by_name(
    good: Any, bad: Any, reason: str, tmp_path: Path
) -> None:
    rows, report = convert(tmp_path, [bad, good])
    assert len(rows) == 1
    assert dict(report.dropped) == {reason: 1}


def test_a_single_tool_of_gemini_is_declared_and_its_thinking_is_not_said(tmp_path: Path) -> None:
    thinking = {"text": "What to say?", "thought": True}
    answer = {"role": "model", "parts": [thinking, {"text": "Yes", "thoughtSignature": "c2ln"}]}
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}, answer]
    tool = {"functionDeclarations": [{"name": "price"}]}
    (row,), _ = convert(tmp_path, [{"contents": contents, "tools": tool}])
    assert row["messages"] == [USER, ANSWER]
    assert row["tools"] == [{"type": "function", "function": {"name": "price"}}]


def test_what_is_missing_in_a_frame_is_missing() -> None:
    class Frame:
        columns = ("conversations", "tools", "system")

        def itertuples(self, index: bool, name: None) -> list[tuple[Any, ...]]:
            assert (index, name) == (False, None)
            turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]
            return [(turns, float("nan"), float("nan"))]

    assert convert_frame(Frame(), ConvertOptions())[0]["messages"] == [USER, ANSWER]


def test_a_value_nested_too_deep_is_told_and_the_other_rows_are_kept(tmp_path: Path) -> None:
    schema = '{"a":' * 900 + "1" + "}" * 900
    deep = {**GEMINI, "tools": [{"functionDeclarations": [{"parameters": "SCHEMA"}]}]}
    lines = [json.dumps(GEMINI), json.dumps(deep).replace('"SCHEMA"', schema)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines))
    report = convert_file(source, tmp_path / "made.jsonl", ConvertOptions())
    assert dict(report.dropped) == {"a value is nested too deep": 1}
    assert report.rows_out == 1


def test_what_was_thought_and_not_said_is_left_out_and_counted(tmp_path: Path) -> None:
    _, report = convert(tmp_path, [CLAUDE] * 2)
    said = "it was left out: rows hold what was said."
    assert f"Thinking stands 2 times; {said}" in report.notes
    _, report = convert(tmp_path, [CHATGPT] * 3)
    assert f"Thinking stands 3 times; {said}" in report.notes
    kept = "What a user or a model keeps for all conversations"
    assert f"{kept} stands 3 times; {said}" in report.notes
    thought = {"role": "model", "parts": [{"text": "?", "thought": True}, {"text": "Yes"}]}
    turns = [GEMINI["contents"][0], thought]
    broken = {"contents": [*turns, {"role": "user", "parts": "?"}]}
    source, target = tmp_path / "rows.jsonl", tmp_path / "made.jsonl"
    lines = [GEMINI, broken, {"contents": turns}, {"contents": turns}]
    source.write_text("\n".join(map(json.dumps, lines)))
    report = convert_file(source, target, ConvertOptions())
    assert (report.rows_out, report.rows_in) == (3, 4)
    assert f"Thinking stands 2 times, the first in line 3; {said}" in report.notes, (
        "what a dropped row thought is no part of it"
    )


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "frame"])
def test_a_field_called_contents_that_holds_texts_is_a_column_and_no_turns_of_gemini(
    ending: str, tmp_path: Path
) -> None:
    import pandas
    from pandas.testing import assert_frame_equal

    rows = [{"contents": f"Hi {n}", "answer": "Yes", "label": "x"} for n in range(3)]
    frame = pandas.DataFrame(rows)
    named = ConvertOptions(user="contents", assistant="answer")
    wanted = [{"messages": [{"role": "user", "content": f"Hi {n}"}, ANSWER]} for n in range(3)]
    if ending == "frame":
        with pytest.raises(InvalidRequest, match="No column is plainly what the user says"):
            convert_frame(frame, ConvertOptions())
        with pytest.warns(UserWarning, match="Not used: 'label'"):
            assert convert_frame(frame, named) == wanted
        assert convert_frame(pandas.DataFrame([GEMINI] * 2), ConvertOptions()) == [CHAT] * 2
        assert_frame_equal(frame, pandas.DataFrame(rows))
        return
    source, target = tmp_path / f"rows.{ending}", tmp_path / "made.jsonl"
    if ending == "parquet":
        frame.to_parquet(source)
    elif ending == "json":
        source.write_text(json.dumps(rows))
    else:
        source.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InvalidRequest, match="No column is plainly what the user says"):
        convert_file(source, target, ConvertOptions())
    hint = conversion_hint(source)
    assert hint is not None
    assert "Gemini" not in hint
    assert "--user COLUMN" in hint
    report = convert_file(source, target, named)
    assert not report.dropped
    assert [json.loads(line) for line in target.read_text().splitlines()] == wanted


def test_a_column_of_a_table_that_is_called_as_an_exports_turns_is_a_column(
    tmp_path: Path,
) -> None:
    source = tmp_path / "table.csv"
    source.write_text("contents,answer\nHi,Yes\n")
    hint = conversion_hint(source)
    assert hint is not None
    assert "--user COLUMN" in hint
    report = convert_file(
        source, tmp_path / "a.jsonl", ConvertOptions(user="contents", assistant="answer")
    )
    assert report.rows_out == 1
    source.write_text("question,answer,contents\nHi,Yes,letter\n")
    report = convert_file(source, tmp_path / "b.jsonl", ConvertOptions())
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {"messages": [USER, ANSWER]}


def test_a_system_text_beside_a_chat_loses_nothing_of_the_chat(tmp_path: Path) -> None:
    weighted = {**ANSWER, "weight": 0}
    record = {"system": "Be kind.", "messages": [USER, weighted, USER, ANSWER], "tools": []}
    (row,), _ = convert(tmp_path, [record])
    assert row == {"messages": [SYSTEM, USER, weighted, USER, ANSWER], "tools": []}


def test_chats_with_broken_characters_are_not_called_a_file_of_another_form(
    tmp_path: Path,
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "half \\ud83d", "completion": "c"}\n' * 3)
    assert conversion_hint(source) is None
