"""What `auto` becomes."""

from __future__ import annotations

import pytest

from afina.domain.auto import (
    auto_batch_size,
    auto_epochs,
    base_learning_rate,
    resolve,
    total_steps,
    warmup_steps,
)
from afina.domain.jobs import Hyperparameters
from afina.domain.precision import resolve_precision


@pytest.mark.parametrize(
    ("rows", "epochs"), [(10, 10), (4, 25), (1, 25), (33, 3), (50, 3), (8333, 3), (12500, 2)]
)
def test_epochs_follow_the_published_rule(rows: int, epochs: int) -> None:
    assert auto_epochs(rows) == epochs


@pytest.mark.parametrize(
    ("rows", "batch"), [(1, 1), (10, 1), (50, 4), (95, 7), (100, 8), (100_000, 8)]
)
def test_a_batch_leaves_twelve_steps_to_an_epoch(rows: int, batch: int) -> None:
    assert auto_batch_size(rows) == batch


def test_wider_networks_take_smaller_steps() -> None:
    rates = [base_learning_rate(width, 1) for width in (64, 576, 1024, 2048, 4096)]
    assert rates[:2] == [5e-4, 5e-4]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == base_learning_rate(None, 1) == 1.1e-4


def test_larger_batches_take_larger_steps_up_to_sixteen_rows() -> None:
    assert [base_learning_rate(576, batch) for batch in (1, 4, 16, 256)] == [5e-4, 1e-3, 2e-3, 2e-3]


def test_what_was_asked_for_stays() -> None:
    asked = Hyperparameters(n_epochs=2, batch_size=16, learning_rate_multiplier=0.5)
    assert resolve(asked, 50) == asked
    assert resolve(Hyperparameters(), 50) == Hyperparameters(3, 4, 1.0)


def test_every_epoch_ends_with_a_step() -> None:
    assert total_steps(50, 4, 3) == 39
    assert [warmup_steps(steps) for steps in (1, 39, 10_000)] == [1, 2, 100]


def test_precision_is_what_was_asked_else_what_the_processor_does() -> None:
    assert resolve_precision("fp32", "flags: avx512_bf16") == "fp32"
    assert resolve_precision("auto", "flags: fpu avx512_bf16") == "bf16"
    assert resolve_precision("auto", "flags: fpu amx_bf16 x") == "bf16"
    assert resolve_precision("auto", "flags: fpu avx512f") == "fp32"
    assert resolve_precision("auto", "", cuda=True) == "bf16"
