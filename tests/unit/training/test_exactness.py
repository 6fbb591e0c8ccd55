"""However a step of random chats is computed, its gradient is the same: in bins of any size, with
what the frozen layers say kept or computed again, with logits at answers alone or everywhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_run import make_run
from tests.unit.training.test_equality import (
    FAMILIES,
    ListedRows,
    assert_same,
    chats_with_beginnings,
    loss_and_gradient,
    network,
    random_rows,
    with_all_logits,
)

from afina.domain.runs import RunPaths, TuneSpec
from afina.model.packed import Masks
from afina.training.bins import Rows, plan_bins
from afina.training.given import read_spec
from afina.training.methods import build_network
from afina.training.network import Network

slow_enough = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TUNES = {
    "blocks": TuneSpec("blocks", 2),
    "head": TuneSpec("blocks", 1, norm_and_head=True),
    "full": TuneSpec("full"),
}


@cache
def own(kind: str) -> Network:
    root = Path(mkdtemp(prefix="afina-test-")) / "run"
    make_run(root, rows=7, tune=TUNES[kind], bin_capacities=(128, 256, 512))
    return build_network(read_spec(RunPaths(root)))


def gradient(
    made: Network,
    rows: Rows,
    learned: int,
    capacities: tuple[int, ...],
    *,
    everywhere: bool = False,
) -> tuple[float, torch.Tensor]:
    made.adapter.grads.zero_()
    total = 0.0
    for one in plan_bins(rows, range(len(rows)), capacities):
        tensors = made.make_bin(rows, one, Masks())
        if everywhere:
            tensors = with_all_logits(tensors)
        loss, _, _ = made.loss(tensors, learned)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, made.adapter.grads.clone()


@slow_enough
@given(
    st.lists(st.integers(2, 90), min_size=1, max_size=12),
    st.integers(0, 1000),
    st.lists(st.integers(3, 40), min_size=2, max_size=2),
)
def test_micro_batches_of_any_size_give_the_same_gradient(
    lengths: list[int], seed: int, sizes: list[int]
) -> None:
    rows, made = random_rows(lengths, seed), network("llama")
    found = [
        loss_and_gradient(made, rows, plan_bins(rows, range(len(rows)), (32 * size,)))
        for size in sizes
    ]
    assert_same(found[0], found[1])


@slow_enough
@given(FAMILIES, st.integers(0, 1000), st.sampled_from(["blocks", "head"]))
def test_the_cache_of_frozen_layers_on_and_off_gives_the_same_gradient(
    families: list[tuple[int, list[int]]], seed: int, kind: str
) -> None:
    rows: ListedRows = chats_with_beginnings(families, seed)
    made = own(kind)
    kept = made.prepare(rows, Path(mkdtemp(prefix="afina-test-")) / "frozen", lambda: False)
    assert kept is not rows
    capacities = (128, 256, 512)
    assert_same(
        gradient(made, kept, rows.learned, capacities),
        gradient(made, rows, rows.learned, capacities),
    )


@slow_enough
@given(FAMILIES, st.integers(0, 1000), st.sampled_from(sorted(TUNES)))
def test_own_weights_learn_the_same_from_logits_at_answers_alone_and_everywhere(
    families: list[tuple[int, list[int]]], seed: int, kind: str
) -> None:
    rows, made = chats_with_beginnings(families, seed), own(kind)
    alone = gradient(made, rows, rows.learned, (128, 512))
    assert_same(alone, gradient(made, rows, rows.learned, (128, 512), everywhere=True))


@pytest.mark.parametrize("kind", sorted(TUNES))
def test_the_topmost_layer_computes_what_a_loss_looks_at_and_no_more(kind: str) -> None:
    made = own(kind)
    rows = chats_with_beginnings([(60, [4, 6, 5])], 3)
    one = plan_bins(rows, range(3), (128,))[0]
    tensors = made.make_bin(rows, one, Masks())
    seen: list[int] = []
    product = torch.nn.functional.linear

    def noted(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[0])
        return product(x, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", noted)
        made.logits(tensors)
    assert seen.count(len(tensors.keep_K)) >= 3
    assert seen.count(tensors.ids_1T.shape[1]) >= 1
