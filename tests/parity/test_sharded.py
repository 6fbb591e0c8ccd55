"""All weights, sharded over two processes, learn what one process learns: the same curve, files of
the same form, and the same bytes each time and after any stop."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.several import (
    Killed,
    at_point,
    by_torchrun,
    curve,
    killed_at,
    team_of_two,
    twin,
    warnings,
)
from tests.tiny_run import make_run, write_spec

from afina.domain.runs import OptimizerSpec, ParentSpec, Precision, RunPaths, RunSpec, TuneSpec
from afina.errors import TrainingFailed
from afina.training.bins import BinTensors
from afina.training.memory import DoesNotFit, note_halving
from afina.training.run import run_directory
from afina.training.sharded import ShardedNetwork
from afina.training.signals import Stop

pytestmark = pytest.mark.long
FILES = ("masters.safetensors", "optimizer.safetensors", "weights.safetensors")


def numbers(root: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    with safe_open(root / f"checkpoints/step-{step}" / name, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


def bytes_of(root: Path, step: int) -> list[bytes]:
    return [(root / f"checkpoints/step-{step}" / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, Path]:
    """The run that is not sharded: seven rows a step are unequal parts for two."""
    root = tmp_path_factory.mktemp("runs") / "whole"
    spec = make_run(
        root, tune=TuneSpec("full"), batch_size=7, rows=19, optimizer=OptimizerSpec(1e-3, 1, 6)
    )
    assert run_directory(root) is not None
    return spec, root


@pytest.fixture(scope="module")
def sharded(whole: tuple[RunSpec, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shards(whole[0], tmp_path_factory.mktemp("runs") / "sharded")
    assert run_directory(root) is not None
    return root


def shards(spec: RunSpec, root: Path, **changes: Any) -> Path:
    """The run in shards over two processes."""
    return twin(spec, root, **{"sharded": True, "processes": 2, **changes})


def test_two_processes_with_sharded_weights_give_the_curve_and_the_files_of_one(
    whole: tuple[RunSpec, Path], sharded: Path
) -> None:
    for name in ("train_loss", "train_mean_token_accuracy", "valid_loss", "full_valid_loss"):
        assert curve(sharded, name) == pytest.approx(curve(whole[1], name), rel=1e-4)
    for name in FILES:
        ours, theirs = numbers(sharded, 6, name), numbers(whole[1], 6, name)
        assert list(ours) == list(theirs)
        for key in ours:
            assert (ours[key].shape, ours[key].dtype) == (theirs[key].shape, theirs[key].dtype)
            difference = float((ours[key].float() - theirs[key].float()).norm())
            assert difference <= 2e-3 * float(theirs[key].float().norm()), (name, key)
    results = [json.loads(RunPaths(root).result.read_bytes()) for root in (sharded, whole[1])]
    ids = [[row["ids"] for row in result["parity"]] for result in results]
    assert ids[0] == ids[1]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "step"), [("step", 5), ("saving", 3)])
def test_a_sharded_run_killed_anywhere_ends_with_the_same_bytes(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path, point: str, step: int
) -> None:
    root = shards(whole[0], tmp_path / "run")
    with pytest.raises(Killed):
        run_directory(root, hooks=killed_at(point, step))
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)
    assert curve(root) == curve(sharded)


@pytest.mark.slow
def test_sigterm_within_a_step_a_pause_and_a_cancel_are_obeyed(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    root, stop = shards(whole[0], tmp_path / "run"), Stop()
    paths = RunPaths(root)

    assert run_directory(root, stop, hooks=at_point("step", 2, stop.ask)) is None
    assert (paths.checkpoints / "step-1").is_dir()

    def pause() -> None:
        paths.control.write_text('{"wish": "pause"}')

    paused = run_directory(root, hooks=at_point("step", 4, pause))
    assert paused is not None
    assert (paused.outcome, paused.steps) == ("paused", 4)
    assert len(paused.parity) == 3
    paths.control.unlink()
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)

    other = shards(whole[0], tmp_path / "cancelled")
    RunPaths(other).control.write_text('{"wish": "cancel"}')
    cancelled = run_directory(other)
    assert cancelled is not None
    assert cancelled.outcome == "cancelled"


@pytest.mark.slow
def test_a_process_that_dies_fails_the_sharded_run_by_name_and_it_goes_on_from_its_checkpoint(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    root = shards(whole[0], tmp_path / "run")
    team, kill = team_of_two(root)
    with pytest.raises(TrainingFailed, match="2 processes ended"):
        run_directory(root, hooks=at_point("step", 5, kill), team=team)
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_a_sharded_run_by_its_step(
    whole: tuple[RunSpec, Path], tmp_path: Path
) -> None:
    rate = OptimizerSpec(1e30, 0, 6, max_gradient_norm=1e30)
    root = shards(whole[0], tmp_path / "run", optimizer=rate)
    with pytest.raises(TrainingFailed, match=r"of step [2-6] is not a finite number"):
        run_directory(root)


@pytest.mark.slow
def test_a_sharded_run_goes_on_from_the_weights_of_its_parent(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    folder = whole[1] / "checkpoints/step-6"
    digest = hashlib.sha256((folder / FILES[2]).read_bytes()).hexdigest()
    parent = ParentSpec("0" * 64, str(folder), {FILES[2]: digest})
    write_spec(tmp_path / "one", replace(whole[0], parent=parent))
    two = shards(whole[0], tmp_path / "two", parent=parent)
    for root in (tmp_path / "one", two):
        assert run_directory(root) is not None
    assert curve(two) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    assert curve(two)[0] < curve(sharded)[0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torchrun_starts_a_sharded_run(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path, precision: Precision
) -> None:
    spec = replace(whole[0], sharded=True, precision=precision)
    root = by_torchrun(spec, tmp_path / "run")
    if precision == "fp32":
        assert curve(root) == curve(sharded)
        return
    assert run_directory(twin(whole[0], tmp_path / "one", precision=precision)) is not None
    for name in ("train_loss", "full_valid_loss"):
        assert curve(root, name) == pytest.approx(curve(tmp_path / "one", name), rel=2e-2)
    again = by_torchrun(spec, tmp_path / "again")
    assert bytes_of(again, 6) == bytes_of(root, 6)


LARGE: dict[str, Any] = {"batch_size": 19, "optimizer": OptimizerSpec(1e-3, 1, 2)}


def refuse_above(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader's memory holds bins of so many tokens."""
    real = ShardedNetwork.loss

    def loss(self: ShardedNetwork, tensors: BinTensors, learned: int) -> Any:
        if tensors.ids_1T.shape[1] > tokens and torch.is_grad_enabled():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(self, tensors, learned)

    monkeypatch.setattr(ShardedNetwork, "loss", loss)


@pytest.mark.slow
def test_memory_that_runs_out_in_a_sharded_step_halves_the_bins_and_the_run_goes_on(
    whole: tuple[RunSpec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {**LARGE, "bin_capacities": (64, 128, 256)}
    assert run_directory(twin(whole[0], tmp_path / "one", **sizes)) is not None
    root = shards(whole[0], tmp_path / "run", **sizes)
    refuse_above(128, monkeypatch)
    assert run_directory(root) is not None
    assert curve(root) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    assert ["at most 128 tokens" in one["message"] for one in warnings(root)] == [True]


@pytest.mark.slow
def test_a_helper_whose_memory_runs_out_halves_the_bins_of_the_next_life(
    whole: tuple[RunSpec, Path], tmp_path: Path
) -> None:
    root = shards(whole[0], tmp_path / "run")
    team, kill = team_of_two(root)

    def out_of_memory() -> None:
        note_halving(root, 1)  # a helper's last deed
        kill()

    # this team is the test's, so the test begins the next life
    with pytest.raises(DoesNotFit) as caught:
        run_directory(root, hooks=at_point("step", 5, out_of_memory), team=team)
    assert caught.value.in_smaller_bins
    assert run_directory(root) is not None
    assert curve(root) == pytest.approx(curve(whole[1]), rel=1e-4)
    assert any("Memory ran out before" in one["message"] for one in warnings(root))


@pytest.mark.slow
def test_a_sharded_step_that_fits_in_no_bin_fails_and_says_what_would(
    whole: tuple[RunSpec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shards(whole[0], tmp_path / "run", **LARGE, bin_capacities=(64, 128, 256))
    refuse_above(32, monkeypatch)
    with pytest.raises(TrainingFailed, match="Step 1 does not fit into memory") as caught:
        run_directory(root)
    assert caught.value.code == "out_of_memory"
    assert "tokens would fit" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tune": TuneSpec("blocks", 1)}, "kind blocks cannot be sharded"),
        ({"tune": TuneSpec("lora")}, "kind lora cannot be sharded"),
        ({"method": "dpo", "beta": 0.1}, "A dpo run of kind full cannot be sharded"),
    ],
)
def test_what_cannot_be_sharded_is_refused_by_name(
    whole: tuple[RunSpec, Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    root = shards(whole[0], tmp_path / "run", **changes)
    with pytest.raises(TrainingFailed, match=words):
        run_directory(root)


def test_one_process_alone_does_not_shard(whole: tuple[RunSpec, Path], tmp_path: Path) -> None:
    write_spec(tmp_path / "run", replace(whole[0], sharded=True))
    with pytest.raises(TrainingFailed, match="several processes only"):
        run_directory(tmp_path / "run")
