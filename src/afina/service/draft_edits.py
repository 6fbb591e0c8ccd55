"""The edits of a draft: a list of steps that can be taken back, in edits.json of its folder.

A step names rows by their number, which rows keep for ever. What the rows are now follows from the
steps that hold; `draft_rows` makes them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from afina.domain.codec import decode, encode

_FILE: Final = "edits.json"


@dataclass(frozen=True)
class Step:
    """One edit. `text` is the new row, or None where `rows` are dropped."""

    rows: tuple[int, ...]
    text: str | None = None


@dataclass(frozen=True)
class History:
    """Edits that hold, and those that were taken back and can be done again."""

    done: tuple[Step, ...] = ()
    undone: tuple[Step, ...] = ()


def read_history(folder: Path) -> History:
    """What was edited so far."""
    try:
        return decode(History, json.loads((folder / _FILE).read_bytes()), "edits")
    except FileNotFoundError:
        return History()


def write_history(folder: Path, history: History) -> None:
    """Keeps it; the caller holds the draft's lock."""
    write_whole(folder / _FILE, json.dumps(encode(history)).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def changes_of(history: History) -> dict[int, str | None]:
    """The rows that are others now, by number; None for one that is dropped."""
    return {number: step.text for step in history.done for number in step.rows}


def under_system(history: History, old: str | None, new: str | None) -> History:
    """The same edits where every row got another system prompt: mended rows get it too, unless
    they have one of their own."""

    def moved(step: Step) -> Step:
        return step if step.text is None else replace(step, text=_prompted(step.text, old, new))

    done, undone = map(moved, history.done), map(moved, history.undone)
    return History(tuple(done), tuple(undone))


def _prompted(text: str, old: str | None, new: str | None) -> str:
    row: Any = json.loads(text)
    messages = row.get("messages")
    if not isinstance(messages, list):
        return text
    if messages[:1] == [{"role": "system", "content": old}]:
        messages = messages[1:]
    first = messages[0].get("role") if messages and isinstance(messages[0], dict) else None
    if new and first not in ("system", "developer"):
        messages = [{"role": "system", "content": new}, *messages]
    try:
        moved = json.dumps({**row, "messages": messages}, ensure_ascii=False)
        moved.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps({**row, "messages": messages})
    return moved
