"""Stored chat completions as the official client sees them, and their way into a training file."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion
from tests.contract.live import BASE, Live

from afina.domain.accounts import Caller
from afina.errors import InvalidRequest, NotFound
from afina.service import stored
from afina.service.stored import CompletionQuery
from afina.serving.testing import Script

HELLO: Any = [{"role": "user", "content": "Hello!"}]
TOOL: Any = {"type": "function", "function": {"name": "f"}}


def ask(client: openai.OpenAI, kind: str, **more: Any) -> str:
    metadata = {"kind": kind}
    answer = client.chat.completions.create(
        model=BASE, messages=HELLO, store=True, metadata=metadata, **more
    )
    return str(answer.id)


def test_what_was_stored_is_found_changed_and_deleted(client: openai.OpenAI) -> None:
    first, second = ask(client, "a", temperature=0.5), ask(client, "b")
    found = client.chat.completions.retrieve(first)
    ChatCompletion.model_validate(found.model_dump())
    assert found.choices[0].message.content == "Well met, good friend."
    assert found.to_dict()["temperature"] == 0.5
    own = [c.id for c in client.chat.completions.list(model=BASE)]
    assert own[-2:] == [first, second]
    assert [c.id for c in client.chat.completions.list(order="desc", limit=1)][:2] == own[::-1][:2]
    assert [c.id for c in client.chat.completions.list(metadata={"kind": "b"})][-1] == second
    assert first not in [c.id for c in client.chat.completions.list(metadata={"kind": "b"})]
    changed = client.chat.completions.update(first, metadata={"kind": "b", "good": "yes"})
    assert changed.to_dict()["metadata"] == {"kind": "b", "good": "yes"}
    assert first in [c.id for c in client.chat.completions.list(metadata={"good": "yes"})]
    gone = client.chat.completions.delete(first)
    assert (gone.deleted, gone.object) == (True, "chat.completion.deleted")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(first)
    client.chat.completions.delete(second)


def test_messages_have_ids_and_pages(client: openai.OpenAI) -> None:
    chat: Any = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        },
    ]
    kept = client.chat.completions.create(model=BASE, messages=chat, store=True)
    messages = list(client.chat.completions.messages.list(kept.id, limit=1))
    assert [m.content for m in messages] == ["Be brief.", "Hello"]
    assert messages[1].content_parts is not None
    assert len({m.id for m in messages}) == 2
    client.chat.completions.delete(kept.id)


def test_streams_are_stored_as_wholes_and_nothing_unasked_is(
    live: Live, client: openai.OpenAI
) -> None:
    before = len(list(client.chat.completions.list()))
    client.chat.completions.create(model=BASE, messages=HELLO)
    live.engine.script = Script('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    chunks = list(
        client.chat.completions.create(
            model=BASE, messages=HELLO, store=True, stream=True, tools=[TOOL]
        )
    )
    found = list(client.chat.completions.list())
    assert len(found) == before + 1
    assert found[-1].id == chunks[0].id
    calls = found[-1].choices[0].message.tool_calls or []
    streamed = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    assert streamed[0] is not None
    assert calls[0].id == streamed[0][0].id
    client.chat.completions.delete(found[-1].id)


def test_another_projects_completion_is_not_there(live: Live, client: openai.OpenAI) -> None:
    id = ask(client, "mine")
    stranger = Caller("proj_other", "key_x", "org-x")
    with pytest.raises(NotFound, match="No such chat completion"):
        stored.get_completion(live.platform, stranger, id)
    client.chat.completions.delete(id)


def test_deleting_leaves_no_byte_of_the_text(own_live: Live) -> None:
    secret = "xyzzy-plugh-8841"
    with openai.OpenAI(base_url=f"{own_live.url}/v1", api_key=own_live.key) as client:
        chat: Any = [{"role": "user", "content": secret}]
        kept = client.chat.completions.create(model=BASE, messages=chat, store=True)
        client.chat.completions.delete(kept.id)
    with own_live.platform.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in own_live.settings.data.glob("afina.db*"):
        assert secret.encode() not in file.read_bytes()


def test_the_way_back_into_a_training_file(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script("Forsooth.")
    good = [ask(client, "good") for _ in range(3)]
    live.engine.script = Script('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>')
    good.append(ask(client, "good", tools=[TOOL]))
    live.engine.script = Script("cut off here")
    good.append(ask(client, "good", max_completion_tokens=1))
    bad = ask(client, "bad")
    answer = live.http.post(
        "/v1/afina/distill", json={"metadata": {"kind": "good"}, "filename": "good.jsonl"}
    ).json()
    assert answer["rows"] == 4
    assert answer["left_out"] == {"cut by their limit of tokens": 1}
    rows = [json.loads(line) for line in client.files.content(answer["file"]["id"]).iter_lines()]
    assert rows[0]["messages"] == [*HELLO, {"role": "assistant", "content": "Forsooth."}]
    assert rows[3]["tools"] == [TOOL]
    assert rows[3]["messages"][-1]["tool_calls"][0]["function"]["name"] == "f"
    caller = Caller("proj_other", "key_x", "org-x")
    with pytest.raises(InvalidRequest):
        stored.distill(live.platform, caller, CompletionQuery(), "x.jsonl")
    for id in [*good, bad]:
        client.chat.completions.delete(id)


def test_kept_answers_go_when_their_time_is_over(own_live: Live) -> None:
    with openai.OpenAI(base_url=f"{own_live.url}/v1", api_key=own_live.key) as client:
        ask(client, "old")
    tables = ("stored_completions", "completion_labels")
    with own_live.platform.database.write() as tx:
        tx.exec_driver_sql("UPDATE stored_completions SET expires_at = 1")
    assert stored.sweep_answers(own_live.platform) == 1
    with own_live.platform.database.read() as tx:
        for table in tables:
            assert tx.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
