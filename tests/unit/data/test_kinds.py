"""The kinds of rows: told apart by their keys, read into typed values."""

from __future__ import annotations

from typing import Any

import pytest

from afina.data.kinds import (
    KINDS_OF_METHOD,
    RowKind,
    chats_of,
    kind_of_file,
    kind_of_row,
    read_pair,
    read_preference,
    read_task,
)

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Yes"}
BAD = {"role": "assistant", "content": "No"}
CHAT = {"messages": [USER, GOOD]}
TASK = {"messages": [USER], "answer": "Yes", "tools": None}
PAIR = {"prompt": "a", "completion": " b"}
PREFERENCE = {
    "input": {"messages": [USER, GOOD, USER]},
    "preferred_output": [GOOD],
    "non_preferred_output": [BAD],
}


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (CHAT, RowKind.CHAT),
        ({"messages": [USER]}, RowKind.CHAT),
        ({"messages": 3}, RowKind.CHAT),
        (TASK, RowKind.RFT),
        (PAIR, RowKind.PROMPT_COMPLETION),
        ({"completion": "b"}, RowKind.PROMPT_COMPLETION),
        (PREFERENCE, RowKind.PREFERENCE),
        ({"question": "a"}, None),
        ([1], None),
    ],
)
def test_a_rows_kind_is_told_by_its_keys(row: Any, kind: RowKind | None) -> None:
    assert kind_of_row(row) == kind


def test_a_file_of_the_wrong_kind_is_held_against_what_its_job_needs() -> None:
    assert kind_of_file(CHAT, KINDS_OF_METHOD["dpo"]) is RowKind.PREFERENCE
    assert kind_of_file(CHAT, KINDS_OF_METHOD["reinforcement"]) is RowKind.RFT
    assert kind_of_file(PREFERENCE, KINDS_OF_METHOD["supervised"]) is RowKind.CHAT
    assert kind_of_file(PAIR, KINDS_OF_METHOD["supervised"]) is RowKind.PROMPT_COMPLETION
    assert kind_of_file(PAIR, None) is RowKind.PROMPT_COMPLETION
    assert kind_of_file([1], None) is RowKind.CHAT


def test_a_preference_is_two_chats_of_which_only_the_last_answer_is_learned() -> None:
    preferred, rejected = chats_of(RowKind.PREFERENCE, PREFERENCE)
    assert [m.get("weight") for m in preferred[0]] == [None, 0, None, None]
    assert preferred[0][-1] == GOOD
    assert rejected[0][-1] == BAD
    assert read_preference(PREFERENCE).rejected == BAD


def test_pairs_and_tasks_are_read_as_they_are() -> None:
    assert read_pair(PAIR).completion == " b"
    assert read_pair({"prompt": None, "completion": "b"}).prompt == ""
    assert chats_of(RowKind.PROMPT_COMPLETION, PAIR) == ()
    assert read_task(TASK).item == {"answer": "Yes"}
