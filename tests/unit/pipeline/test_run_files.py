"""The worker reads a run's events whole, once, and from the beginning after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afina.domain.codec import encode
from afina.domain.jobs import Wish
from afina.domain.runs import RunEvent, RunPaths
from afina.errors import Internal
from afina.pipeline.run_files import (
    EventReader,
    read_all_events,
    read_events,
    read_result,
    write_wish,
)


def lines(*sequences: int) -> str:
    events = [RunEvent(n, 1.0, "step", {"step": n}) for n in sequences]
    return "".join(json.dumps(encode(event)) + "\n" for event in events)


def sequences(reader: EventReader) -> list[int]:
    tail = reader.read()
    assert reader.read() == tail, "it comes again until it is accepted"
    if tail.events:
        reader.accept(tail)
    return [event.sequence for event in tail.events]


def test_a_line_half_written_waits(tmp_path: Path) -> None:
    paths, reader = RunPaths(tmp_path), EventReader(RunPaths(tmp_path))
    text = lines(1, 2)
    paths.events.write_text(text[:-5])
    assert sequences(reader) == [1]
    assert sequences(reader) == []
    paths.events.write_text(text)
    assert sequences(reader) == [2]


@pytest.mark.parametrize("cut", [(1,), (1, 2), ()])
@pytest.mark.parametrize("grown", [0, 1, 5])
def test_a_file_that_a_resume_cut_is_read_again(
    tmp_path: Path, cut: tuple[int, ...], grown: int
) -> None:
    paths, reader = RunPaths(tmp_path), EventReader(RunPaths(tmp_path))
    paths.events.write_text(lines(1, 2, 3, 4))
    assert sequences(reader) == [1, 2, 3, 4]
    again = tuple(range(len(cut) + 1, len(cut) + 1 + grown))
    # the same things said again at another time, in lines of other lengths
    paths.events.write_text(lines(*cut) + lines(*again).replace("1.0", "1.0625"))
    seen = {1, 2, 3, 4}
    while new := sequences(reader):
        seen |= set(new)
    assert seen == {1, 2, 3, 4, *again}


def test_every_event_is_read_however_small_the_pieces(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.events.write_text(lines(*range(1, 101)))
    offset = 0
    seen: list[int] = []
    while (tail := read_events(paths, offset, seen[-1] if seen else 0, limit_bytes=300)).events:
        seen += [event.sequence for event in tail.events]
        offset = tail.offset
    assert seen == list(range(1, 101))
    assert [event.sequence for event in read_all_events(paths)] == seen


def test_a_run_that_has_not_begun_says_nothing(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "none")
    assert read_events(paths, 0).events == ()
    assert read_result(paths) is None


def test_a_foreign_line_is_refused_by_name_and_not_quoted(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.events.write_text('{"secret": "a training text"}\n')
    with pytest.raises(Internal) as caught:
        read_events(paths, 0)
    assert "events.jsonl" in caught.value.message
    assert "a training text" not in caught.value.message


def test_a_wish_is_written_whole(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_wish(paths, Wish.CANCEL)
    assert json.loads(paths.control.read_text()) == {"wish": "cancel"}
    write_wish(paths, None)
    assert json.loads(paths.control.read_text()) == {"wish": None}
    assert [path.name for path in tmp_path.iterdir()] == ["control.json"]
