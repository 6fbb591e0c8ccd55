"""Several processes learn what one learns: the same losses, the same weights but for the last
digits, and the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from tests.several import Killed, at_point, by_torchrun, curve, killed_at, team_of_two, twin
from tests.tiny_run import make_run
from tests.unit.training.test_methods import HEAD, make_pairs

from afina.domain.runs import OptimizerSpec, RunPaths, RunSpec, TuneSpec
from afina.errors import TrainingFailed
from afina.training.run import run_directory
from afina.training.team import Team

pytestmark = pytest.mark.long


def weights(root: Path) -> torch.Tensor:
    result = json.loads(RunPaths(root).result.read_bytes())
    folder = root / result["checkpoints"][-1]["directory"]
    masters: torch.Tensor = load((folder / "masters.safetensors").read_bytes())["masters"]
    return masters


def made(root: Path, kind: str) -> RunSpec:
    if kind == "dpo":
        return make_pairs(root)
    tunes = {"lora": TuneSpec(), "dora": TuneSpec("dora"), "blocks": HEAD}
    rate = 1e-3 if kind == "blocks" else 1e-2
    return make_run(root, tune=tunes[kind], batch_size=5, optimizer=OptimizerSpec(rate, 1, 6))


@pytest.mark.parametrize("kind", ["lora", pytest.param("blocks", marks=pytest.mark.slow), "dpo"])
def test_two_processes_give_the_losses_and_the_weights_of_one(tmp_path: Path, kind: str) -> None:
    spec = made(tmp_path / "one", kind)
    assert run_directory(tmp_path / "one") is not None
    two = twin(spec, tmp_path / "two", processes=2)
    assert run_directory(two) is not None
    assert curve(two) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    ours, theirs = weights(two), weights(tmp_path / "one")
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_again_and_after_a_kill_of_the_leader(
    tmp_path: Path,
) -> None:
    spec = made(tmp_path / "spec", "lora")
    once, twice = (twin(spec, tmp_path / name, processes=2) for name in ("once", "twice"))
    assert run_directory(once) is not None

    with pytest.raises(Killed):
        run_directory(twice, hooks=killed_at("step", 5))
    assert run_directory(twice) is not None
    assert torch.equal(weights(once), weights(twice))
    assert curve(once) == curve(twice)


@pytest.mark.slow
def test_a_helper_that_dies_fails_the_run_by_name_and_keeps_the_checkpoint(
    tmp_path: Path,
) -> None:
    spec = made(tmp_path / "spec", "lora")
    root = twin(spec, tmp_path / "run", processes=2)
    team, kill = team_of_two(root)
    with pytest.raises(TrainingFailed, match="2 processes ended"):
        run_directory(root, hooks=at_point("step", 5, kill), team=team)
    assert (RunPaths(root).checkpoints / "step-3").is_dir()
    assert run_directory(root) is not None


@pytest.mark.slow
def test_torchrun_starts_the_same_run(tmp_path: Path) -> None:
    spec = made(tmp_path / "one", "lora")
    assert run_directory(tmp_path / "one") is not None
    root = by_torchrun(spec, tmp_path / "torchrun")
    assert curve(root) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)


def test_rows_are_shared_out_whole_evenly_and_alike_in_every_process() -> None:
    lengths = {4: 10, 7: 50, 1: 20, 9: 30, 3: 30}
    shares = []
    for rank in range(3):
        team = Team()
        team.rank, team.size = rank, 3
        shares.append(team.share(tuple(lengths), lengths.__getitem__))
    assert sorted(row for share in shares for row in share) == sorted(lengths)
    assert [sum(lengths[row] for row in share) for share in shares] == [50, 50, 40]
    assert Team().share((4, 7, 1), lengths.__getitem__) == (4, 7, 1)
