"""Numbers that overflow for real end a run by the name of their step, and no checkpoint holds any."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import spoil
from tests.tiny_run import make_run, read_events, write_spec

from afina.domain.runs import BaseSpec, OptimizerSpec, RunPaths, TuneSpec
from afina.errors import TrainingFailed
from afina.model.folder import folder_sha256
from afina.settings import child_environment
from afina.training.checkpoints import newest_checkpoint
from afina.training.optimizer import all_finite
from afina.training.run import run_directory

FULL, BLOCKS, LORA = TuneSpec("full"), TuneSpec("blocks", 1), TuneSpec()


def make_steep_run(root: Path, steepness: float, epochs: int = 3, **changes: Any) -> None:
    """A run of one step an epoch whose rate is 0 at step 1 and a thousandth of so much later."""
    steep = OptimizerSpec(1e-3, 0, epochs, final_fraction=steepness, max_gradient_norm=1e30)
    make_run(root, rows=4, epochs=epochs, optimizer=steep, **changes)


def kept_step(root: Path) -> int:
    """The step of the newest checkpoint, whose weights are numbers; 0 without one."""
    found = newest_checkpoint(RunPaths(root))
    if found is None:
        return 0
    for name in ("masters.safetensors", "optimizer.safetensors"):
        for tensor in load_file(found.folder / name).values():
            assert bool(tensor.isfinite().all())
    return found.record.step


def process(root: Path) -> dict[str, Any]:
    """What the trainer, as a process of its own, tells as its last word."""
    done = subprocess.run(
        [sys.executable, "-m", "afina.training", str(root)],
        env=child_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        timeout=240,
    )
    last = read_events(root)[-1]
    assert (done.returncode, last.kind, last.data["code"]) == (1, "failed", "not_finite")
    return dict(last.data)


@pytest.mark.long
def test_a_trainer_whose_numbers_overflow_names_the_step_and_keeps_the_checkpoint_before(
    tmp_path: Path,
) -> None:
    root = tmp_path / "run"
    make_steep_run(root, 1e45, tune=FULL, precision="bf16")
    told = process(root)
    assert told["message"] == "The result of step 2 is not a finite number."
    assert "learning_rate_multiplier" in told["remedy"]
    assert kept_step(root) == 1


@pytest.mark.long
def test_a_base_whose_weights_are_no_numbers_is_named_as_the_reason(tmp_path: Path) -> None:
    spec = make_run(tmp_path / "first", validation=None)
    folder = Path(spec.base.path)
    spoil(folder)
    base = BaseSpec(spec.base.id, spec.base.path, folder_sha256(folder))
    root = tmp_path / "run"
    write_spec(root, replace(spec, base=base))
    told = process(root)
    assert told["message"] == "The loss of step 1 is not a finite number."
    assert "the base model itself" in told["remedy"]
    assert kept_step(root) == 0


@pytest.mark.parametrize(
    ("tune", "steepness", "validated", "message", "kept"),
    [
        pytest.param(LORA, 1e45, True, "result of step 2", 1, id="adapter"),
        pytest.param(BLOCKS, 1e45, False, "result of step 2", 1, id="blocks"),
        pytest.param(FULL, 1e20, True, "valid_loss of step 2", 1, id="validation"),
        pytest.param(FULL, 1e20, False, "loss of step 3", 2, id="loss"),
        pytest.param(FULL, 1e33, False, "gradient of step 3", 2, id="gradient"),
    ],
)
def test_each_number_that_overflows_is_named(
    tmp_path: Path, tune: TuneSpec, steepness: float, validated: bool, message: str, kept: int
) -> None:
    root = tmp_path / "run"
    changes: dict[str, Any] = {} if validated else {"validation": None}
    make_steep_run(root, steepness, tune=tune, precision="fp32", **changes)
    with pytest.raises(TrainingFailed, match=f"^The {message} is not a finite number") as caught:
        run_directory(root)
    assert caught.value.code == "not_finite"
    assert kept_step(root) == kept


def test_a_run_whose_last_step_ruins_the_model_does_not_end_well(tmp_path: Path) -> None:
    root = tmp_path / "run"
    make_steep_run(root, 1e20, epochs=2, tune=FULL, validation=None)
    with pytest.raises(TrainingFailed, match="answer by the model of step 2") as caught:
        run_directory(root)
    assert caught.value.code == "not_finite"
    assert not RunPaths(root).result.exists()


def test_weights_are_finite_only_if_each_is_a_number_in_bf16() -> None:
    weights = torch.ones(1000)
    assert all_finite(weights)
    assert all_finite(torch.empty(0))
    for odd in (torch.nan, torch.inf, -torch.inf, 3.4e38, -3.4e38):
        weights[777] = odd
        assert not all_finite(weights), odd
    weights[777] = 3.38e38
    assert all_finite(weights)
