"""The worker's side of a run directory: what it writes into it and how it follows it.

The trainer's side is afina.training; the contract between both is afina.domain.runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from afina.domain.codec import decode, encode
from afina.domain.jobs import Wish
from afina.domain.runs import RunEvent, RunPaths, RunResult, RunSpec
from afina.errors import Internal

T = TypeVar("T")
_MAX_CHUNK_BYTES = 4 * 1024 * 1024


def write_json(path: Path, value: object) -> None:
    """Write a value so that a reader sees all of it or what stood there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(encode(value), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_spec(paths: RunPaths, spec: RunSpec) -> None:
    """Write spec.json: the last thing that preparation does."""
    paths.root.mkdir(parents=True, exist_ok=True)
    write_json(paths.spec, spec)


def read_spec(paths: RunPaths) -> RunSpec:
    """spec.json as it stands. Raises Internal if it is not what we wrote."""
    return _read(RunSpec, paths.spec)


def read_result(paths: RunPaths) -> RunResult | None:
    """result.json if the run has come to an end that it could write down."""
    if not paths.result.exists():
        return None
    return _read(RunResult, paths.result)


def write_wish(paths: RunPaths, wish: Wish | None) -> None:
    """Tell the trainer what is wanted; it reads it at its next step."""
    write_json(paths.control, {"wish": None if wish is None else wish.value})


@dataclass(frozen=True)
class Tail:
    """New events of a run and the offset behind the last whole line that was read."""

    events: tuple[RunEvent, ...]
    offset: int


def read_events(paths: RunPaths, offset: int, limit_bytes: int = _MAX_CHUNK_BYTES) -> Tail:
    """The whole lines of events.jsonl from `offset` on; a line half written waits."""
    try:
        with paths.events.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                return Tail((), 0)  # a resume cut the file: read it again, nothing counts twice
            file.seek(offset)
            raw = file.read(limit_bytes)
    except FileNotFoundError:
        return Tail((), 0)
    whole = raw[: raw.rfind(b"\n") + 1]
    events = tuple(_event(line, paths) for line in whole.splitlines())
    return Tail(events, offset + len(whole))


def read_all_events(paths: RunPaths) -> tuple[RunEvent, ...]:
    """Every event of a run that has ended."""
    events: list[RunEvent] = []
    offset = 0
    while (tail := read_events(paths, offset)).events:
        events += tail.events
        offset = tail.offset
    return tuple(events)


def follow(paths: RunPaths, offset: int, take: Callable[[Tail], None]) -> int:
    """Give `take` everything that stands behind `offset`, in pieces; the new offset."""
    while (tail := read_events(paths, offset)).events:
        take(tail)
        offset = tail.offset
    return offset


def _event(line: bytes, paths: RunPaths) -> RunEvent:
    try:
        return decode(RunEvent, json.loads(line), "event")
    except ValueError as error:
        raise Internal(f"{paths.events} holds a line that is no event: {error}.") from None


def _read(cls: type[T], path: Path) -> T:
    try:
        return decode(cls, json.loads(path.read_bytes()), path.name)
    except (OSError, ValueError) as error:
        raise Internal(f"{path} cannot be read: {error}.") from None
