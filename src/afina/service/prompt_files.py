"""Files of prompts to ask models by, with the answers to expect where the file has them.

Nothing is stored: a file is read, its prompts are given back, and the bytes are gone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from afina.data.cells import cell_text
from afina.data.columns import ANSWER_NAMES, QUESTION_NAMES
from afina.data.readers.records import Record
from afina.data.sheets import open_likely
from afina.errors import InvalidRequest, TooLarge

MOST_PROMPTS: Final = 1000
MOST_BYTES: Final = 64 * 1024 * 1024
_ENDING_CHARS: Final = 8
_EXPECTED: Final = (*ANSWER_NAMES, "expected", "ideal", "target", "reference")


@dataclass(frozen=True)
class Prompt:
    """A chat up to where the model answers, and what it should answer; None where nobody said."""

    messages: tuple[Mapping[str, str], ...]
    expected: str | None = None


@dataclass(frozen=True)
class PromptFile:
    """The first prompts of a file. `rows` = `len(prompts)` + `passed_over` + `beyond`."""

    prompts: tuple[Prompt, ...]
    columns: tuple[str, ...]
    prompt_column: str | None
    """None where rows hold chats."""
    expected_column: str | None
    rows: int
    passed_over: int
    """Rows without a prompt, or that are none."""
    beyond: int
    """Rows after the first `MOST_PROMPTS`."""


def read_prompts(
    source: Iterable[bytes], name: str, prompt: str | None = None, expected: str | None = None
) -> PromptFile:
    """The prompts of a table or of chats, whose columns may be named; else names that say what
    they are, else the first column. `expected=""`: none is expected. Raises DataUnreadable,
    InvalidRequest, TooLarge."""
    ending = Path(name).suffix.lower()
    if not ending[1:].isalnum() or len(ending) > _ENDING_CHARS:
        ending = ""
    with tempfile.TemporaryDirectory(prefix="afina-prompts-") as folder:
        path = Path(folder) / f"prompts{ending}"
        size = 0
        with path.open("wb") as out:
            for piece in source:
                size += len(piece)
                if size > MOST_BYTES:
                    raise TooLarge(f"A file of prompts may have {MOST_BYTES:,} bytes.")
                out.write(piece)
        if size == 0:
            raise InvalidRequest("The file is empty.", param="file")
        table, _ = open_likely(path)
        return _collected(table.columns, table.records, prompt, expected)


def _collected(
    columns: tuple[str, ...], records: Iterator[Any], prompt: str | None, expected: str | None
) -> PromptFile:
    is_chat = "messages" in columns and not prompt
    asked = None if is_chat else _column(columns, prompt, QUESTION_NAMES, "prompt")
    answer = None
    if not is_chat and expected != "":
        others = tuple(column for column in columns if column != asked)
        answer = _column(others, expected, _EXPECTED, "expected", needed=False)
    found: list[Prompt] = []
    rows = passed_over = 0
    for record in records:
        rows += 1
        read = None
        if isinstance(record, Record):
            read = (
                _of_chat(record.values) if asked is None else _of_row(record.values, asked, answer)
            )
        if read is None:
            passed_over += 1
        elif len(found) < MOST_PROMPTS:
            found.append(read)
    if not found:
        raise InvalidRequest(
            "The file has no prompt.",
            param="file",
            remedy="Give a table with a column of prompts, or JSON lines with messages.",
        )
    beyond = rows - passed_over - len(found)
    return PromptFile(tuple(found), columns, asked, answer, rows, passed_over, beyond)


def _column(
    columns: tuple[str, ...],
    named: str | None,
    usual: tuple[str, ...],
    param: str,
    *,
    needed: bool = True,
) -> str | None:
    if named:
        if named not in columns:
            raise InvalidRequest(f"The file has no column {named[:64]!r}.", param=param)
        return named
    for column in columns:
        if column.strip().lower() in usual:
            return column
    if needed and not columns:
        raise InvalidRequest("The file has no columns.", param=param)
    return columns[0] if needed else None


def _of_row(values: Mapping[str, Any], asked: str, answer: str | None) -> Prompt | None:
    text = cell_text(values.get(asked))
    if not text.strip():
        return None
    expected = cell_text(values.get(answer)).strip() if answer is not None else ""
    return Prompt(({"role": "user", "content": text},), expected or None)


def _of_chat(values: Mapping[str, Any]) -> Prompt | None:
    """A chat without its last answer; only plain chats, of roles and texts."""
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    plain = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return None
        if message.get("role") not in ("system", "developer", "user", "assistant"):
            return None
        plain.append({"role": str(message["role"]), "content": str(message["content"])})
    expected = plain.pop()["content"] if plain[-1]["role"] == "assistant" else None
    return Prompt(tuple(plain), expected) if plain else None
