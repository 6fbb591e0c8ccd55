"""Rows that somebody keeps while trying a model: they gather in a draft, to be trained on later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.errors import InvalidRequest
from afina.service import bases
from afina.service.draft_files import Draft, add_line
from afina.service.drafts import changing, get_draft, list_drafts, start_draft
from afina.service.platform import Platform

_ROLES: Final = ("system", "user", "assistant")
_MOST_MESSAGES: Final = 256
_MOST_BYTES: Final = 1024 * 1024


def collections(platform: Platform, caller: Caller) -> list[Draft]:
    """The drafts that a row can be added to, newest first: those whose rows are chats as they
    came, and not made of a table's columns."""
    return [d for d in list_drafts(platform, caller) if not d.is_table and "messages" in d.columns]


def collect_row(
    platform: Platform,
    caller: Caller,
    messages: Sequence[Mapping[str, Any]],
    draft_id: str | None = None,
    name: str = "playground.jsonl",
) -> Draft:
    """Adds a chat to a draft, or begins one of that name with it. Raises InvalidRequest for what
    is no chat that ends with an answer, and NotFound."""
    line = _line(messages)
    if draft_id is None:
        here = bases.list_bases(platform)
        base = here[0].id if here else None
        chosen = name if name.endswith(".jsonl") else f"{name}.jsonl"
        return start_draft(platform, caller, [line], chosen, base)
    draft = get_draft(platform, caller, draft_id)
    if draft.is_table or "messages" not in draft.columns:
        raise InvalidRequest(
            f"{draft.filename} is a table: its rows come from its columns.",
            param="draft",
            remedy="Choose a draft of chats, or begin a new one.",
        )
    with changing(platform, caller, draft_id) as (folder, draft):
        return add_line(folder, replace(draft, bytes=draft.bytes + len(line)), line)


def _line(messages: Sequence[Mapping[str, Any]]) -> bytes:
    if not 1 <= len(messages) <= _MOST_MESSAGES:
        raise InvalidRequest("A row has 1 to 256 messages.", param="messages")
    plain = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if (
            role not in _ROLES
            or not isinstance(content, str)
            or set(message) != {"role", "content"}
        ):
            raise InvalidRequest(
                "A message here has a role (system, user or assistant) and a text.",
                param="messages",
            )
        plain.append({"role": role, "content": content})
    if plain[-1]["role"] != "assistant" or not str(plain[-1]["content"]).strip():
        raise InvalidRequest("The last message must be an answer.", param="messages")
    text = json.dumps({"messages": plain}, ensure_ascii=False)
    try:
        line = text.encode()
    except UnicodeEncodeError:
        line = json.dumps({"messages": plain}).encode()
    if len(line) > _MOST_BYTES:
        raise InvalidRequest("A row may have at most 1 MiB here.", param="messages")
    return line + b"\n"
