"""Names of who speaks reach the model where its template writes them, and are refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import TEMPLATE, write_tiny_tokenizer

from afina.data.check import check_file
from afina.data.limits import CheckLimits
from afina.errors import UnsupportedField
from afina.service.messages import refuse_names
from afina.text.renderer import Renderer

NAMED = TEMPLATE.replace(
    "message['role']", "message['role'] + (' ' + message['name'] if message['name'] else '')"
)
USERS_ALONE = TEMPLATE.replace(
    "message['role']",
    "message['role'] + (' ' + message['name'] if message['role'] == 'user' and message['name'] "
    "else '')",
)
CHAT = [{"role": "user", "name": "Ann", "content": "Hi"}]


def renderer(folder: Path, template: str) -> Renderer:
    write_tiny_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Renderer.load(folder)


def test_a_template_tells_whose_names_it_writes(tmp_path: Path) -> None:
    assert renderer(tmp_path / "none", TEMPLATE).named_roles == frozenset()
    assert renderer(tmp_path / "users", USERS_ALONE).named_roles == {"user"}
    every = renderer(tmp_path / "all", NAMED)
    assert every.named_roles == {"system", "developer", "user", "assistant"}
    assert "Ann" in every.tokenizer.decode(every.prompt(CHAT))


def test_a_name_that_would_change_nothing_is_refused_by_its_place() -> None:
    refuse_names(CHAT, {"user"})
    answered = [*CHAT, {"role": "assistant", "name": "Bob", "content": "Hi"}]
    with pytest.raises(UnsupportedField) as caught:
        refuse_names(answered, {"user"})
    assert caught.value.param == "messages[1].name"
    assert "write it into the content" in caught.value.message


def test_the_name_of_a_result_is_its_functions() -> None:
    refuse_names([{"role": "tool", "name": "clock", "content": "9", "tool_call_id": "c"}], set())


@pytest.mark.parametrize("template", [TEMPLATE, USERS_ALONE, NAMED])
def test_a_training_file_is_warned_of_the_names_that_a_request_is_refused_for(
    tmp_path: Path, template: str
) -> None:
    model = renderer(tmp_path / "model", template)
    speakers = [
        {"role": role, "name": "Ann", "content": "Hi"} for role in ("system", "user", "assistant")
    ]
    told = {"role": "tool", "name": "clock", "content": "9", "tool_call_id": "c"}
    calls = [{"id": "c", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]
    chat: list[dict[str, Any]] = [
        *speakers[:2],
        {"role": "assistant", "tool_calls": calls},
        told,
        speakers[2],
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps({'messages': chat})}\n")
    refused = 0
    for message in chat:
        try:
            refuse_names([message], model.named_roles)
        except UnsupportedField:
            refused += 1
    found = check_file(rows, CheckLimits(min_rows=1), model)
    warned = [one for one in found.findings if one.rule == "name-without-effect"]
    assert len(warned) == (refused > 0)
    assert all(one.message.startswith(f"{refused} messages") for one in warned)
