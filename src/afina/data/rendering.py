"""What a model's renderer makes of rows of any kind: lengths, loss, or why it cannot write them.

A preference counts as its two chats; a row for reinforcement as the prompt that the model is asked
with, which carries no loss; a prompt and its completion as raw text with one token for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from afina.data.kinds import RowKind, chats_of, read_pair, read_task
from afina.data.raw_text import pair_row
from afina.data.rows import chat_of
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer


@dataclass(frozen=True)
class Written:
    """Tokens of each training row that a row becomes, and those with loss in all of them."""

    lengths: tuple[int, ...]
    learned: tuple[int, ...]


def write_rows(
    kind: RowKind, rows: Sequence[dict[str, Any]], renderer: Renderer
) -> list[Written | InvalidRequest]:
    """One result a row, in their order."""
    if kind is RowKind.PROMPT_COMPLETION:
        return [_pair(row, renderer) for row in rows]
    if kind is RowKind.RFT:
        return [_task(row, renderer) for row in rows]
    chats = [chats_of(kind, row) for row in rows]
    results = iter(renderer.training_rows(chat for pair in chats for chat in pair))
    return [_joined(list(islice(results, len(pair)))) for pair in chats]


def forged_messages(kind: RowKind, row: dict[str, Any], renderer: Renderer) -> list[int]:
    """Numbers of messages whose text looks like a control token; 1 for raw text."""
    has_control = renderer.tokenizer.has_control
    if kind is RowKind.PROMPT_COMPLETION:
        pair = read_pair(row)
        return [1] if has_control(pair.prompt) or has_control(pair.completion) else []
    if kind is RowKind.PREFERENCE:
        outputs = [*row["preferred_output"], *row["non_preferred_output"]]
        messages = [*row["input"]["messages"], *outputs]
    else:
        messages = list(chat_of(row)[0])
    return [
        number
        for number, message in enumerate(messages, 1)
        if isinstance(message.get("content"), str) and has_control(message["content"])
    ]


def _joined(results: list[Any]) -> Written | InvalidRequest:
    lengths: list[int] = []
    learned: list[int] = []
    for result in results:
        if isinstance(result, InvalidRequest):
            return result
        lengths += [len(row.ids) for row in result]
        learned += [int(np.count_nonzero(row.learned)) for row in result]
    return Written(tuple(lengths), tuple(learned))


def _pair(row: dict[str, Any], renderer: Renderer) -> Written:
    written = pair_row(read_pair(row), renderer)
    return Written((len(written.ids),), (int(written.learned.sum()),))


def _task(row: dict[str, Any], renderer: Renderer) -> Written | InvalidRequest:
    task = read_task(row)
    try:
        return Written((len(renderer.prompt(task.messages, task.tools)),), (0,))
    except InvalidRequest as error:
        return error
