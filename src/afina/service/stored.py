"""Stored chat completions: kept on request, shown, labelled, deleted, and made training rows.

A kept answer lives for 30 days, as on the hosted service. The way back: `distill` writes a file of
training rows from the completions that a model or its labels pick out. Rows with several choices
give the first one; answers that were cut (`length`) are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from afina.domain.accounts import Caller
from afina.domain.files import StoredFile
from afina.domain.pages import Page
from afina.errors import InvalidRequest, NotFound
from afina.service.files import check_limit, upload_file
from afina.service.platform import Platform
from afina.store import answers
from afina.store.answers import CompletionQuery as CompletionQuery
from afina.store.answers import StoredCompletion as StoredCompletion

KEPT_S: Final = 30 * 24 * 3600
MAX_LIST: Final = 100
_ROW_KEYS: Final = ("tools", "functions", "parallel_tool_calls")


@dataclass(frozen=True)
class Distilled:
    """A file of training rows, and the completions that gave none, by reason."""

    file: StoredFile
    rows: int
    left_out: Mapping[str, int]


def keep_completion(
    platform: Platform, caller: Caller, request: dict[str, Any], answer: dict[str, Any]
) -> None:
    """Keeps a copy of what was asked and answered."""
    now = platform.clock.now()
    kept = StoredCompletion(
        id=answer["id"],
        created_at=answer["created"],
        expires_at=int(now) + KEPT_S,
        model=answer["model"],
        metadata=answer.get("metadata") or {},
        request=request,
        answer=answer,
    )
    with platform.database.write() as tx:
        answers.insert_completion(tx, kept, caller, now)


def get_completion(platform: Platform, caller: Caller, id: str) -> StoredCompletion:
    """Raises NotFound."""
    with platform.database.read() as tx:
        found = answers.get_completion(tx, id, caller.project_id, platform.now())
    if found is None:
        raise _gone(id)
    return found


def list_completions(
    platform: Platform, caller: Caller, query: CompletionQuery
) -> Page[StoredCompletion]:
    """A page of the project's stored completions. Raises InvalidRequest."""
    check_limit(query.limit, MAX_LIST)
    with platform.database.read() as tx:
        return answers.list_completions(tx, caller.project_id, query, platform.now())


def kept_models(platform: Platform, caller: Caller) -> dict[str, int]:
    """How many of the project's answers are kept, by model, most first."""
    with platform.database.read() as tx:
        return answers.completion_models(tx, caller.project_id, platform.now())


def kept_labels(platform: Platform, caller: Caller) -> list[tuple[str, str]]:
    """The pairs of metadata that most of the project's kept answers have."""
    with platform.database.read() as tx:
        return answers.completion_labels(tx, caller.project_id, platform.now(), MAX_LIST)


def label_completion(
    platform: Platform, caller: Caller, id: str, metadata: Mapping[str, str]
) -> StoredCompletion:
    """Gives a completion other metadata. Raises NotFound."""
    with platform.database.write() as tx:
        found = answers.get_completion(tx, id, caller.project_id, platform.now())
        if found is None:
            raise _gone(id)
        answers.label_completion(tx, found, metadata)
    return get_completion(platform, caller, id)


def delete_completion(platform: Platform, caller: Caller, id: str) -> None:
    """Deletes a completion. Raises NotFound."""
    with platform.database.write() as tx:
        if answers.get_completion(tx, id, caller.project_id, platform.now()) is None:
            raise _gone(id)
        answers.delete_completion(tx, id)


def sweep_answers(platform: Platform) -> int:
    """Removes kept answers, responses too, whose time is over; how many."""
    with platform.database.write() as tx:
        return answers.delete_expired(tx, platform.now())


def completion_document(kept: StoredCompletion) -> dict[str, Any]:
    """A stored completion as the wire shows it: the answer with its metadata and what was asked
    for beside the messages, which are a list of their own."""
    asked = {name: kept.request.get(name) for name in _SHOWN}
    return {**kept.answer, "metadata": dict(kept.metadata), **asked, "request_id": None}


_SHOWN: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)


def message_documents(kept: StoredCompletion) -> list[dict[str, Any]]:
    """The messages that were asked with, each with an id."""
    shown = []
    for number, message in enumerate(kept.request["messages"]):
        content = message.get("content")
        parts = content if isinstance(content, list) else None
        text = content if parts is None else "".join(str(p.get("text") or "") for p in parts)
        shown.append(
            {
                "refusal": None,
                **message,
                "id": f"{kept.id}-{number}",
                "content": text,
                "content_parts": parts,
            }
        )
    return shown


def distill(platform: Platform, caller: Caller, query: CompletionQuery, filename: str) -> Distilled:
    """A file of training rows from stored completions; the query's page is not looked at. Raises
    InvalidRequest where nothing gives a row."""
    rows, left_out = training_rows(platform, caller, query)
    file = upload_file(platform, caller, _pieces(rows), filename, "fine-tune")
    return Distilled(file, len(rows), left_out)


def training_rows(
    platform: Platform, caller: Caller, query: CompletionQuery
) -> tuple[list[bytes], dict[str, int]]:
    """The lines of a training file from stored completions, and how many gave none, by reason.
    Raises InvalidRequest where nothing gives a row."""
    left_out: Counter[str] = Counter()
    rows: list[bytes] = []
    with platform.database.read() as tx:
        for kept in answers.each_completion(tx, caller.project_id, query, platform.now()):
            row = training_row(kept)
            if isinstance(row, str):
                left_out[row] += 1
            else:
                rows.append(msgspec.json.encode(row) + b"\n")
    if not rows:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise InvalidRequest(
            f"No stored completion gives a training row{f' ({told})' if told else ''}.",
            remedy="Ask with `store: true`, or choose another model or other metadata.",
            code="invalid_n_examples",
        )
    return rows, dict(left_out)


def training_row(kept: StoredCompletion) -> dict[str, Any] | str:
    """A completion as a training row, or the reason why it is none."""
    choice = kept.answer["choices"][0]
    if choice["finish_reason"] == "length":
        return "cut by their limit of tokens"
    told = choice["message"]
    message = {"role": "assistant", "content": told["content"]}
    message |= {k: told[k] for k in ("tool_calls", "function_call") if told.get(k)}
    if not told["content"] and len(message) == 2:
        return "empty"
    row: dict[str, Any] = {"messages": [*kept.request["messages"], message]}
    row |= {k: kept.request[k] for k in _ROW_KEYS if kept.request.get(k) is not None}
    return row


def _pieces(rows: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(rows), 256):
        yield b"".join(rows[start : start + 256])


def _gone(id: str) -> NotFound:
    return NotFound(f"No such chat completion: {id[:100]}", param="id")
