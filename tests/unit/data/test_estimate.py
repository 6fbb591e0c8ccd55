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
from afina.domain.foresight import Network, Packed, Rows, training_memory
from afina.domain.jobs import Hyperparameters
from afina.domain.prices import Prices, pico_per_token
from afina.domain.rates import OVERHEAD_S, Costs, Load, TrainingRate
from afina.domain.runs import LoraSpec
from afina.domain.ways import PLAIN, Way
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
    load = Load(found.trained_tokens, 150, 39, found.learned_tokens, found.longest_row, epochs=3)
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


def starter_network(element: int) -> Network:
    config = {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "intermediate_size": 1536, "vocab_size": 49152,
        "model_type": "llama",
    }  # fmt: skip
    found = Network.of(config, 134_515_008, element)
    assert found is not None
    return found


QV = ("q_proj", "v_proj")
SMALL = (Rows(16, 1536, 783, 110), Packed(0.78, 607))
LARGE = (Rows(16, 2018, 1270, 148), Packed(0.82, 1658))
MEASURED: dict[str, tuple[Way, int, tuple[Rows, Packed], float]] = {
    "q and v": (Way(targets=QV), 4, SMALL, 1.916e9),
    "q and v, more rows": (Way(targets=QV), 4, LARGE, 3.518e9),
    "dropout": (Way(dropout=0.1), 4, (SMALL[0], Packed(1.0, 775)), 3.523e9),
    "dropout, more rows": (Way(dropout=0.1), 4, (LARGE[0], Packed(1.0, 2018)), 6.692e9),
    "dora": (Way("dora"), 4, SMALL, 2.503e9),
    "dora, more rows": (Way("dora"), 4, LARGE, 5.184e9),
    "4 bits": (Way(base_bits=4), 4, SMALL, 2.295e9),
    "4 bits, more rows": (Way(base_bits=4), 4, LARGE, 4.161e9),
    "full": (Way("full"), 4, SMALL, 6.841e9),
    "last layers": (Way("blocks", layers=7), 2, SMALL, 1.821e9),
    "norm and head": (Way("blocks", layers=7, norm_and_head=True), 4, SMALL, 3.531e9),
    "preferences": (Way(pairs=True), 2, (Rows(8, 1512, 786, 220), Packed(0.77, 599)), 1.381e9),
}


@pytest.mark.parametrize("name", MEASURED)
def test_memory_follows_what_is_tuned_and_how(name: str) -> None:
    way, element, (rows, packed), came = MEASURED[name]
    network = starter_network(element)
    said = training_memory(network, rows, way, (8, packed), 2048, kernels=True)
    assert abs(said - came) < 0.15 * came


def test_a_checkpoint_is_copied_only_where_there_is_room() -> None:
    plenty, little = (
        training_memory(
            starter_network(4), SMALL[0], Way("full"), (8, SMALL[1]), 2048, kernels=True, free=free
        )
        for free in (64 << 30, 8 << 30)
    )
    assert plenty - little > 2e9


def test_memory_grows_with_rows_and_batches_and_is_near_what_the_starter_took() -> None:
    starter = starter_network(2)
    modules = LoraSpec().target_modules
    assert starter.adapter_parameters(16, modules) == 4_884_480

    def taken(
        batch: int, mean: int, longest: int, learned: float = 0.6, kernels: bool = False
    ) -> int:
        rows = Rows(10, 10 * mean, int(10 * mean * learned), longest)
        return training_memory(starter, rows, PLAIN, (batch, None), 2048, kernels=kernels)

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
        training_memory(other, rows, PLAIN, (4, None), 2048, kernels=kernels)
        for kernels in (True, False)
    )
    assert one == two, "no kernel computes such a network"
    assert Network.of({"hidden_size": 8}, 1, 2) is None
