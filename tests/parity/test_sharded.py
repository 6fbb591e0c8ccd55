"""All weights, sharded over two processes, learn what one process learns: the same curve, files of
the same form, and the same bytes each time and after any stop."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.tiny_run import make_run, read_events, write_spec

from afina.domain.codec import encode
from afina.domain.runs import OptimizerSpec, ParentSpec, RunPaths, RunSpec, TuneSpec
from afina.errors import TrainingFailed
from afina.training import team as teams
from afina.training.run import Hooks, run_directory
from afina.training.signals import Stop

pytestmark = pytest.mark.long
FILES = ("masters.safetensors", "optimizer.safetensors", "weights.safetensors")


class Killed(BaseException):
    """Stands for the end of the process at a point."""


def numbers(root: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    with safe_open(root / f"checkpoints/step-{step}" / name, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


def curve(root: Path, name: str = "train_loss") -> list[float]:
    events = [event.data for event in read_events(root) if event.kind == "step"]
    return [data[name] for data in events if name in data]


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
    root = twin(whole[0], tmp_path_factory.mktemp("runs") / "sharded")
    assert run_directory(root) is not None
    return root


def twin(spec: RunSpec, root: Path, **changes: Any) -> Path:
    write_spec(root, replace(spec, sharded=True, processes=2, **changes))
    return root


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
    root = twin(whole[0], tmp_path / "run")

    def at(passed: str, number: int) -> None:
        if (passed, number) == (point, step):
            raise Killed

    with pytest.raises(Killed):
        run_directory(root, hooks=Hooks(at))
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)
    assert curve(root) == curve(sharded)


@pytest.mark.slow
def test_sigterm_within_a_step_a_pause_and_a_cancel_are_obeyed(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    root, stop = twin(whole[0], tmp_path / "run"), Stop()
    paths = RunPaths(root)

    def stopping(point: str, step: int) -> None:
        if (point, step) == ("step", 2):
            stop.ask()

    assert run_directory(root, stop, hooks=Hooks(stopping)) is None
    assert (paths.checkpoints / "step-1").is_dir()

    def pausing(point: str, step: int) -> None:
        if (point, step) == ("step", 4):
            paths.control.write_text('{"wish": "pause"}')

    paused = run_directory(root, hooks=Hooks(pausing))
    assert paused is not None
    assert (paused.outcome, paused.steps) == ("paused", 4)
    assert len(paused.parity) == 3
    paths.control.unlink()
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)

    other = twin(whole[0], tmp_path / "cancelled")
    RunPaths(other).control.write_text('{"wish": "cancel"}')
    cancelled = run_directory(other)
    assert cancelled is not None
    assert cancelled.outcome == "cancelled"


@pytest.mark.slow
def test_a_process_that_dies_fails_the_sharded_run_by_name_and_it_goes_on_from_its_checkpoint(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    root = twin(whole[0], tmp_path / "run")
    team = teams.start_team(root, 2)
    assert isinstance(team, teams.Joined)

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 5):
            for helper in team._helpers:
                helper.kill()
                helper.wait()

    with pytest.raises(TrainingFailed, match="2 processes ended"):
        run_directory(root, hooks=Hooks(at), team=team)
    assert run_directory(root) is not None
    assert bytes_of(root, 6) == bytes_of(sharded, 6)


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_a_sharded_run_by_its_step(
    whole: tuple[RunSpec, Path], tmp_path: Path
) -> None:
    rate = OptimizerSpec(1e30, 0, 6, max_gradient_norm=1e30)
    root = twin(whole[0], tmp_path / "run", optimizer=rate)
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
    two = twin(whole[0], tmp_path / "two", parent=parent)
    for root in (tmp_path / "one", two):
        assert run_directory(root) is not None
    assert curve(two) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    assert curve(two)[0] < curve(sharded)[0]


@pytest.mark.slow
def test_torchrun_starts_a_sharded_run(
    whole: tuple[RunSpec, Path], sharded: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    RunPaths(root).spec.write_text(json.dumps(encode(replace(whole[0], sharded=True))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", "-m", "afina.training", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert curve(root) == curve(sharded)


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
    root = twin(whole[0], tmp_path / "run", **changes)
    with pytest.raises(TrainingFailed, match=words):
        run_directory(root)


def test_one_process_alone_does_not_shard(whole: tuple[RunSpec, Path], tmp_path: Path) -> None:
    write_spec(tmp_path / "run", replace(whole[0], sharded=True))
    with pytest.raises(TrainingFailed, match="several processes only"):
        run_directory(tmp_path / "run")
