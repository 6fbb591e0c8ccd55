"""Pages that are touched while a trainer loads."""

from __future__ import annotations

from pathlib import Path

import psutil

from afina.training.heap import LARGEST_SHARE, TIMES_WEIGHTS, WarmHeap, heap_for

SIZE = 96 << 20


def test_the_stretch_is_touched_and_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    heap = WarmHeap(SIZE)
    heap._thread.join()
    assert process.memory_info().rss - before > SIZE / 2
    heap.release()
    heap.release()
    assert heap._start is None


def test_one_that_is_released_early_stops_touching() -> None:
    heap = WarmHeap(4 * SIZE)
    heap.release()
    assert not heap._thread.is_alive()


def test_nothing_to_touch_is_no_work() -> None:
    heap = WarmHeap(0)
    heap.release()
    assert heap._thread.ident is None


def test_the_size_follows_the_base_and_leaves_others_their_memory(tmp_path: Path) -> None:
    assert heap_for(tmp_path) == 0
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    assert heap_for(tmp_path) == TIMES_WEIGHTS * 1000
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(1 << 42)
    assert heap_for(tmp_path) <= LARGEST_SHARE * psutil.virtual_memory().total
