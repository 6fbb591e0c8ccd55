"""Pages that are touched while a trainer loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from afina.domain.foresight import HEAP_TIMES_WEIGHTS
from afina.training.heap import LARGEST_SHARE, WarmHeap, heap_for

SIZE = 96 << 20


FRESH = f"""
import psutil
from afina.training.heap import WarmHeap
before = psutil.Process().memory_info().rss
heap = WarmHeap({SIZE})
heap._thread.join()
print(psutil.Process().memory_info().rss - before)
heap.release()
heap.release()
assert heap._start is None
"""


def test_the_stretch_is_touched_and_given_back() -> None:
    # a process of its own: what others of this one freed would be handed out, touched already
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert int(done.stdout) > SIZE / 2


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
    assert heap_for(tmp_path) == HEAP_TIMES_WEIGHTS * 1000
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(1 << 42)
    assert heap_for(tmp_path) <= LARGEST_SHARE * psutil.virtual_memory().total
