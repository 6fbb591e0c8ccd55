"""Weights lie side by side in large pages, and nobody's lie over another's."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import torch

from afina.model.kernels.arena import Arena


def test_tensors_lie_apart_at_whole_lines_of_the_cache() -> None:
    arena = Arena()
    made = [arena.empty((rows, 3), torch.bfloat16).fill_(rows) for rows in (1, 7, 40, 7)]
    assert all(bool((one == len(one)).all()) for one in made)
    assert all(one.data_ptr() % 64 == 0 for one in made)
    for first, second in pairwise(made):
        assert second.data_ptr() >= first.data_ptr() + first.nbytes


def test_what_no_chunk_holds_has_one_of_its_own() -> None:
    arena = Arena()
    small, large = arena.empty((2,), torch.float32), arena.empty((17 << 20,), torch.float32)
    large.fill_(1.0)
    small.fill_(2.0)
    assert float(large.sum()) == 17 << 20
    assert arena.empty((0, 5), torch.int8).shape == (0, 5)


def test_a_chunk_goes_with_its_last_tensor() -> None:
    arena = Arena()
    held = arena.empty((4,), torch.float32)
    chunk = weakref.ref(arena._chunk)
    arena.empty((17 << 20,), torch.float32)
    gc.collect()
    assert chunk() is not None
    del held
    gc.collect()
    assert chunk() is None
