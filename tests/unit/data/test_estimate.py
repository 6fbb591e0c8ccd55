"""What a job would take, counted as it will be billed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.check import CheckLimits, check_file
from afina.data.estimate import estimate
from afina.data.shards import ShardOptions, build_shards
from afina.domain.foresight import Network, Rows, training_memory
from afina.domain.jobs import Hyperparameters
from afina.domain.prices import Prices, pico_per_token
from afina.domain.rates import OVERHEAD_S, Costs, Load, TrainingRate
from afina.domain.runs import LoraSpec
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def write(path: Path, rows: int, bad: int) -> Path:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    path.write_text("\n".join([json.dumps({"messages": chat})] * rows + ["{}"] * bad))
    return path


def test_an_estimate_counts_the_usable_rows_as_they_are_billed(
    renderer: Renderer, tmp_path: Path
) -> None:
    path = write(tmp_path / "f", 50, 1)
    report = check_file(path, CheckLimits(), renderer)
    found = estimate(
        path,
        renderer,
        report=report,
        hyperparameters=Hyperparameters(),
        prices=Prices(training=pico_per_token("3")),
        rate=TrainingRate(100.0),
    )
    spec = build_shards(path, renderer, tmp_path / "s", ShardOptions(skip_lines=report.bad_lines))
    assert (found.rows, found.rows_dropped) == (50, 1)
    assert found.tokens_per_epoch == spec.tokens
    assert found.learned_tokens_per_epoch == spec.learned_tokens
    assert (found.epochs, found.batch_size, found.steps) == (3, 4, 39)
    assert found.trained_tokens == 3 * spec.tokens
    assert found.cost_pico == found.trained_tokens * 3_000_000
    load = Load(found.trained_tokens, 150, 39, found.learned_tokens, found.longest_row)
    assert found.seconds == OVERHEAD_S + Costs().usual_tokens(load) / 100
    assert (found.seconds_jobs, found.overhead_s) == (0, OVERHEAD_S)
    assert "no job with it has finished here" in (found.seconds_from or "")
    assert 0 < found.seconds_error < 1


def test_what_was_asked_for_is_not_resolved(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "f", 50, 0)
    found = estimate(
        path,
        renderer,
        report=check_file(path, CheckLimits(), None),
        hyperparameters=Hyperparameters(n_epochs=2, batch_size=8),
        prices=Prices(),
    )
    assert (found.epochs, found.batch_size, found.steps) == (2, 8, 14)
    assert found.seconds is None
    assert found.tokens_per_epoch > 0


def test_a_file_without_a_usable_row_has_no_estimate(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "f", 0, 3)
    with pytest.raises(InvalidRequest, match="no usable row"):
        estimate(
            path,
            renderer,
            report=check_file(path, CheckLimits(), renderer),
            hyperparameters=Hyperparameters(),
            prices=Prices(),
        )


def test_memory_grows_with_rows_and_batches_and_is_near_what_the_starter_took() -> None:
    config = {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "intermediate_size": 1536, "vocab_size": 49152,
        "model_type": "llama",
    }  # fmt: skip
    starter = Network.of(config, 134_515_008, 2)
    assert starter is not None
    modules = LoraSpec().target_modules
    adapter = starter.adapter_parameters(16, modules)
    assert adapter == 4_884_480

    def taken(
        batch: int, mean: int, longest: int, learned: float = 0.6, kernels: bool = False
    ) -> int:
        rows = Rows(10, 10 * mean, int(10 * mean * learned), longest)
        asked = {"trained": adapter, "own": False, "batch": batch, "largest": 2048}
        return training_memory(starter, rows, kernels=kernels, **asked)  # type: ignore[arg-type]

    assert taken(4, 99, 120) < taken(8, 99, 120) < taken(8, 99, 4096)
    assert taken(4, 99, 120, 0.1) < taken(4, 99, 120)
    measured = {
        (2, 54, 70, 0.6): 1.385e9,
        (4, 99, 130, 0.6): 1.706e9,
        (2, 393, 485, 0.88): 2.504e9,
        (1, 1194, 1305, 0.68): 2.464e9,
        (5, 346, 591, 0.58): 4.073e9,
        (8, 51, 56, 0.06): 1.506e9,
    }
    for shape, truth in measured.items():
        assert abs(taken(*shape) - truth) < 0.15 * truth, shape
    by_kernels = {
        (4, 94, 112, 0.51): 1.216e9,
        (2, 393, 485, 0.88): 1.403e9,
        (8, 51, 56, 0.06): 1.217e9,
        (1, 1194, 1305, 0.68): 1.640e9,
        (1, 133, 154, 0.57): 1.218e9,
    }
    for shape, truth in by_kernels.items():
        assert abs(taken(*shape, kernels=True) - truth) < 0.1 * truth, shape
    other = replace(starter, plain=False)
    rows = Rows(10, 940, 480, 112)
    one, two = (
        training_memory(other, rows, trained=0, own=False, batch=4, largest=2048, kernels=kernels)
        for kernels in (True, False)
    )
    assert one == two, "no kernel computes such a network"
    assert Network.of({"hidden_size": 8}, 1, 2) is None
