"""The worker's side of a run directory: what it writes into it and how it follows it.

The trainer's side is afina.training; the contract between both is afina.domain.runs.
"""

from __future__ import annotations

import json
import os
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


def write_wish(paths: RunPaths, wish: Wish | None, epochs: int | None = None) -> None:
    """Tell the trainer what is wanted, and how many epochs the budget has; it reads it at its next
    step."""
    said: dict[str, object] = {"wish": None if wish is None else wish.value}
    write_json(paths.control, said if epochs is None else {**said, "epochs": epochs})


class EventsCut(Exception):
    """What stood behind the offset is gone: a resume cut the file, so read it from the start."""


@dataclass(frozen=True)
class Tail:
    """New events of a run and the offset behind the last whole line that was read."""

    events: tuple[RunEvent, ...]
    offset: int


def read_events(
    paths: RunPaths, offset: int, after: int = 0, limit_bytes: int = _MAX_CHUNK_BYTES
) -> Tail:
    """The whole lines of events.jsonl from `offset` on, which follow the event numbered `after`; a
    line half written waits. Raises EventsCut, and Internal for a line that is no event."""
    try:
        with paths.events.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                raise EventsCut
            file.seek(offset)
            raw = file.read(limit_bytes)
    except FileNotFoundError:
        return Tail((), 0)
    whole = raw[: raw.rfind(b"\n") + 1]
    try:
        events = tuple(decode(RunEvent, json.loads(line), "event") for line in whole.splitlines())
    except ValueError as error:
        if offset:  # the file was cut and has grown past the offset since
            raise EventsCut from None
        raise Internal(f"{paths.events} holds a line that is no event: {_shape(error)}.") from None
    if events and offset and events[0].sequence != after + 1:
        raise EventsCut
    return Tail(events, offset + len(whole))


class EventReader:
    """Reads a run's events as they come, from the start again whenever a resume cut them. What was
    read comes again until it is accepted."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._offset = 0
        self._after = 0

    def read(self) -> Tail:
        """What is new; no events where nothing is."""
        try:
            return read_events(self._paths, self._offset, self._after)
        except EventsCut:
            self._offset = self._after = 0
            return read_events(self._paths, 0)

    def accept(self, tail: Tail) -> None:
        """Go on behind `tail`."""
        self._offset = tail.offset
        self._after = tail.events[-1].sequence


def read_all_events(paths: RunPaths) -> tuple[RunEvent, ...]:
    """Every event of a run that nobody writes to."""
    reader = EventReader(paths)
    events: list[RunEvent] = []
    while (tail := reader.read()).events:
        events += tail.events
        reader.accept(tail)
    return tuple(events)


def _shape(error: ValueError) -> str:
    """What is wrong, without the text that stands there."""
    return "not JSON" if isinstance(error, json.JSONDecodeError) else "not of its shape"


def _read(cls: type[T], path: Path) -> T:
    try:
        return decode(cls, json.loads(path.read_bytes()), path.name)
    except (OSError, ValueError) as error:
        raise Internal(f"{path} cannot be read: {error}.") from None
