"""Bins are as large as memory allows; a step that does not fit is computed in smaller ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_run import make_run, read_events

from afina.domain.bins import bin_capacities
from afina.domain.ways import PLAIN, Way
from afina.errors import TrainingFailed
from afina.model.base import load_base
from afina.training.bins import BinTensors
from afina.training.memory import Capacities, bytes_of_token
from afina.training.network import TrainedNetwork
from afina.training.run import run_directory

pytestmark = pytest.mark.long

GIB = 1 << 30


def losses(root: Path) -> list[float]:
    return [event.data["train_loss"] for event in read_events(root) if event.kind == "step"]


def refuse_above(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose memory holds bins of so many tokens."""
    real = TrainedNetwork.loss

    def loss(self: TrainedNetwork, tensors: BinTensors, learned: int) -> object:
        if tensors.ids_1T.shape[1] > tokens and torch.is_grad_enabled():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(self, tensors, learned)

    monkeypatch.setattr(TrainedNetwork, "loss", loss)


def test_bins_are_planned_by_what_the_runs_way_keeps_of_a_token(tmp_path: Path) -> None:
    base = load_base(Path(make_run(tmp_path / "run").base.path), "fp32")

    def kept(way: Way) -> int:
        return bytes_of_token(base, 100, way, kernels=False)

    few, all_ = kept(Way(targets=("q_proj", "v_proj"))), kept(PLAIN)
    assert few < all_ < kept(Way(dropout=0.1))
    assert all_ < kept(Way("dora"))
    assert kept(Way("blocks", layers=1)) < all_ < kept(Way("full"))
    assert all_ < kept(Way(pairs=True))


def test_a_step_that_memory_does_not_hold_is_computed_in_smaller_bins_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 12, "bin_capacities": (256, 512, 1024)}
    make_run(tmp_path / "large", **changes)
    assert run_directory(tmp_path / "large") is not None
    make_run(tmp_path / "small", **changes)
    refuse_above(256, monkeypatch)
    assert run_directory(tmp_path / "small") is not None
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)
    said = [event.data for event in read_events(tmp_path / "small") if event.kind == "warning"]
    assert [data["code"] for data in said] == ["memory", "memory"]
    assert "at most 256 tokens" in said[1]["message"]
    assert [one["name"] for one in said[1]["said"]] == ["bins_halved"], "for other languages"


def test_a_step_that_does_not_fit_after_two_halvings_fails_and_says_what_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", batch_size=12, bin_capacities=(128, 256, 512, 1024))
    refuse_above(64, monkeypatch)
    with pytest.raises(TrainingFailed, match="Step 1 does not fit into memory") as caught:
        run_directory(tmp_path / "run")
    assert caught.value.code == "out_of_memory"
    assert "tokens would fit" in (caught.value.remedy or "")


def test_bins_are_planned_from_free_memory_and_always_hold_the_longest_row() -> None:
    sizes = bin_capacities(0)
    assert Capacities(sizes, 500, 1 << 20, free=64 * GIB).planned == sizes
    assert max(Capacities(sizes, 500, 1 << 20, free=GIB).planned) == 800
    tight = Capacities(sizes, 500, 1 << 20, free=GIB // 8)
    assert max(tight.planned) == 512
    assert "at most 512 tokens" in tight.tell()[0].text
    assert tight.tell() == ()


def test_halving_ends_where_one_row_needs_the_whole_bin() -> None:
    capacities = Capacities((128, 256, 512), 300, 1, free=np.iinfo(np.int64).max)
    with pytest.raises(TrainingFailed, match="does not fit"):
        capacities.halve(1)
