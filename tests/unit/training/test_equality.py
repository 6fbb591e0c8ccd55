"""Packed is unpacked: the same loss and the same gradients, for every architecture that we name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.tiny import make_tiny_model
from torch.nn import functional

from afina.domain.runs import LoraSpec
from afina.model.base import LoadedBase, load_base
from afina.model.block import Block
from afina.model.lora import put_lora_layers
from afina.model.packed import Masks
from afina.training.bins import BinTensors, make_bin, plan_bins
from afina.training.network import TrainedNetwork
from afina.training.packing import Bin, pack_rows

pytestmark = pytest.mark.long

SPEC = LoraSpec(rank=4, alpha=8.0)
FUSED = LoraSpec(
    rank=4, alpha=8.0, target_modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
)


class ListedRows:
    """Rows in memory."""

    def __init__(self, rows: list[tuple[NDArray[np.int32], NDArray[np.bool_]]]) -> None:
        self.rows = rows
        self.lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return self.rows[index]

    @property
    def learned(self) -> int:
        return sum(int(flags[1:].sum()) for _, flags in self.rows)


def random_rows(lengths: list[int], seed: int = 0) -> ListedRows:
    source = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        learned = source.random(length) < 0.6
        learned[-1] = True
        rows.append((source.integers(3, 250, length).astype(np.int32), learned))
    return ListedRows(rows)


@cache
def network(architecture: str) -> TrainedNetwork:
    folder = Path(mkdtemp(prefix="afina-test-"))
    make_tiny_model(folder, architecture=architecture)
    spec = FUSED if architecture == "phi3" else SPEC
    made = TrainedNetwork(load_base(folder, "fp32"), spec, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name in made.adapter.names:
        made.adapter.master_views(name)[1].normal_(0, 0.1, generator=generator)
    made.adapter.refresh()
    return made


def loss_and_gradient(
    made: TrainedNetwork, rows: ListedRows, bins: tuple[Bin, ...]
) -> tuple[float, torch.Tensor]:
    made.adapter.grads.zero_()
    total = 0.0
    for one in bins:
        loss, _, _ = made.loss(make_bin(rows, one, Masks()), rows.learned)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, made.adapter.grads.clone()


def assert_same(
    first: tuple[float, torch.Tensor], second: tuple[float, torch.Tensor], within: float = 1e-6
) -> None:
    assert first[0] == pytest.approx(second[0], rel=within)
    assert float((first[1] - second[1]).norm() / second[1].norm()) <= within


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(2, 90), min_size=1, max_size=12), st.integers(0, 1000))
def test_packed_and_unpacked_give_the_same_loss_and_gradient(lengths: list[int], seed: int) -> None:
    rows = random_rows(lengths, seed)
    made = network("llama")
    packed = pack_rows(range(len(rows)), rows.lengths, (128, 256, 384))
    alone = tuple(Bin((row,), 96) for row in range(len(rows)))
    assert_same(loss_and_gradient(made, rows, packed), loss_and_gradient(made, rows, alone))


def chats_with_beginnings(families: list[tuple[int, list[int]]], seed: int) -> ListedRows:
    """Rows of families: a common beginning of some length, and how long each goes on."""
    source = np.random.default_rng(seed)
    rows = []
    for length, tails in families:
        beginning = source.integers(3, 250, length)
        for tail in tails:
            ids = np.concatenate([beginning, source.integers(3, 250, tail)]).astype(np.int32)
            learned = source.random(length + tail) < 0.5
            learned[:length] &= source.random() < 0.1
            learned[-1 - int(source.random() < 0.3)] = True
            rows.append((ids, learned))
    return ListedRows(rows)


FAMILIES = st.lists(
    st.tuples(st.integers(0, 70), st.lists(st.integers(2, 50), min_size=1, max_size=6)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FAMILIES, st.integers(0, 1000), st.sampled_from([(128, 256), (128, 256, 512, 1024)]))
def test_a_shared_beginning_gives_the_same_loss_and_gradient_as_none(
    families: list[tuple[int, list[int]]], seed: int, capacities: tuple[int, ...]
) -> None:
    rows = chats_with_beginnings(families, seed)
    made = network("llama")
    everything = range(len(rows))
    shared = plan_bins(rows, everything, capacities)
    apart = plan_bins(rows, everything, capacities, share=False)
    alone = tuple(Bin((row,), 128) for row in everything)
    ours = loss_and_gradient(made, rows, shared)
    assert_same(ours, loss_and_gradient(made, rows, apart))
    assert_same(ours, loss_and_gradient(made, rows, alone))


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "mistral", "qwen3"])
def test_a_shared_beginning_longer_than_a_window_equals_separate_eager_passes(
    architecture: str,
) -> None:
    rows = chats_with_beginnings([(40, [9, 31, 3, 14]), (0, [12]), (64, [20, 50])], seed=5)
    made = network(architecture)
    shared = plan_bins(rows, range(len(rows)), (128, 256, 512))
    assert [family.shared > 32 for one in shared for family in one.families] == [True, True, False]
    assert_same(loss_and_gradient(made, rows, shared), eager(made, rows), within=1.5e-6)


def test_a_long_shared_beginning_through_the_fused_kernel_gives_the_same_gradient() -> None:
    rows = chats_with_beginnings([(430, [60, 45]), (0, [20])], seed=6)
    made = network("llama")
    shared = plan_bins(rows, range(3), (1024,))
    long = plan_bins(chats_with_beginnings([(20, [790, 800])], seed=7), range(2), (2048,))
    assert shared[0].families[0].shared > 400
    assert long[0].families[0].shared > 16
    alone = tuple(Bin((row,), 512) for row in range(3))
    assert_same(loss_and_gradient(made, rows, shared), loss_and_gradient(made, rows, alone))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FAMILIES, st.integers(0, 1000), st.sampled_from(["llama", "granite", "gemma2"]))
def test_logits_at_answers_alone_give_the_loss_and_gradient_of_logits_everywhere(
    families: list[tuple[int, list[int]]], seed: int, architecture: str
) -> None:
    rows = chats_with_beginnings(families, seed)
    made = network(architecture)
    found = []
    for everywhere in (False, True):
        made.adapter.grads.zero_()
        total = 0.0
        for one in plan_bins(rows, range(len(rows)), (128, 512)):
            tensors = make_bin(rows, one, Masks())
            tensors = with_all_logits(tensors) if everywhere else tensors
            loss, _, _ = made.loss(tensors, rows.learned)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        found.append((total, made.adapter.grads.clone()))
    assert_same(found[0], found[1])


def with_all_logits(tensors: BinTensors) -> BinTensors:
    """The same bin with logits at every position; those that no loss looks at weigh nothing."""
    count = tensors.ids_1T.shape[1]
    targets, weights = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    kept = tensors.keep_K[: tensors.learned]
    targets[kept] = tensors.targets_K[: tensors.learned]
    weights[kept] = tensors.weights_K[: tensors.learned]
    everywhere = torch.arange(count)
    return replace(tensors, keep_K=everywhere, targets_K=targets, weights_K=weights)


def test_any_size_of_micro_batch_gives_the_same_gradient() -> None:
    rows = random_rows([30, 41, 17, 60, 25, 9])
    made = network("llama")
    whole = loss_and_gradient(made, rows, pack_rows(range(6), rows.lengths, (256,)))
    halves = loss_and_gradient(made, rows, pack_rows(range(6), rows.lengths, (64,)))
    assert_same(whole, halves)


def test_a_long_chat_through_the_fused_kernel_gives_the_same_gradient() -> None:
    rows = random_rows([500, 420, 30])
    made = network("llama")
    fused = loss_and_gradient(made, rows, (Bin((0, 1, 2), 1024),))
    folded = loss_and_gradient(made, rows, tuple(Bin((row,), 512) for row in range(3)))
    large = loss_and_gradient(made, rows, tuple(Bin((row,), 1024) for row in range(3)))
    assert_same(fused, folded)
    assert_same(large, folded, within=2e-6)


@pytest.mark.parametrize(
    "architecture",
    ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "granite"],
)
def test_packed_training_equals_separate_eager_passes(architecture: str) -> None:
    rows = random_rows([3, 58, 31, 12, 44, 20, 7])
    made = network(architecture)
    packed = pack_rows(range(len(rows)), rows.lengths, (128, 256))
    ours = loss_and_gradient(made, rows, packed)
    assert_same(ours, eager(made, rows), within=1.5e-6)


def eager(made: TrainedNetwork, rows: ListedRows) -> tuple[float, torch.Tensor]:
    """The same by transformers' own attention, one chat at a time, and torch's own autograd."""
    folder = Path(made.model.config._name_or_path)
    reference: LoadedBase = load_base(folder, "fp32", attn_implementation="eager")
    pairs = {
        name: [side.clone().requires_grad_() for side in made.adapter.master_views(name)]
        for name in made.adapter.names
    }
    scaling = made.adapter.scaling

    class Plain:
        def delta(self, name: str, x: torch.Tensor) -> torch.Tensor:
            a, b = pairs[name]
            return (x @ a.T @ b.T) * scaling

    put_lora_layers(reference.model, made.adapter.spec.target_modules, Plain())
    total = 0.0
    for ids, learned in rows.rows:
        wide = torch.from_numpy(ids.astype(np.int64))
        logits = reference.model(input_ids=wide[None], use_cache=False).logits[0, :-1]
        losses = functional.cross_entropy(logits, wide[1:], reduction="none")
        part = (losses * torch.from_numpy(learned[1:])).sum() / rows.learned
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    gradient = torch.zeros_like(made.adapter.grads)
    for name, sides in pairs.items():
        for place, side in zip(made.adapter.pair_in(gradient, name), sides, strict=True):
            assert side.grad is not None
            place.copy_(side.grad)
    return total, gradient


def test_what_is_fused_gives_the_same_bits_and_other_norms_keep_their_own_code() -> None:
    assert fused_modules("llama") == 3 * (3 + 1) + 1
    assert fused_modules("qwen3") == 3 * 5 + 1
    assert fused_modules("gemma3") == 0


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [("llama", 3), ("qwen2", 3), ("mistral", 3), ("granite", 3), ("qwen3", 0), ("phi3", 0)],
)
def test_layers_with_these_parts_alone_are_one_operation_and_others_keep_their_own_code(
    architecture: str, layers: int
) -> None:
    whole = [m for m in network(architecture).model.modules() if is_whole(m)]
    assert len(whole) == layers


def test_a_layer_that_scales_what_it_adds_keeps_its_own_code(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, architecture="granite", residual_multiplier=0.5)
    made = TrainedNetwork(load_base(tmp_path, "fp32"), SPEC, seed=3)
    assert not [m for m in made.model.modules() if is_whole(m)]


def is_whole(module: torch.nn.Module) -> bool:
    made = vars(module).get("forward")
    return isinstance(made, partial) and isinstance(made.args[0], Block)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_a_layer_as_one_operation_gives_the_loss_and_the_gradient_of_its_own_code(
    architecture: str,
) -> None:
    rows = chats_with_beginnings([(40, [9, 31, 3, 14]), (0, [12, 30]), (64, [20, 50])], seed=5)
    made = network(architecture)
    bins = plan_bins(rows, range(len(rows)), (128, 256, 512))
    ours = loss_and_gradient(made, rows, bins)
    layers = [m for m in made.model.modules() if is_whole(m)]
    forwards = [vars(m)["forward"] for m in layers]
    for layer in layers:
        del layer.forward
    try:
        own = loss_and_gradient(made, rows, bins)
    finally:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
    assert_same(ours, own)


def fused_modules(architecture: str) -> int:
    modules = network(architecture).model.modules()
    return sum("forward" in vars(module) for module in modules)


def test_dropout_drops_inputs_of_the_low_rank_term_alone_and_repeats_with_its_key() -> None:
    rows = random_rows([30, 20])
    made = network("llama")
    tensors = make_bin(rows, Bin((0, 1), 64), Masks())

    def run(key: int | None) -> float:
        spec = made.adapter.spec
        made.adapter.spec = LoraSpec(rank=4, alpha=8.0, dropout=0.5)
        made.adapter.dropout_generator = None if key is None else torch.Generator().manual_seed(key)
        try:
            return float(made.loss(tensors, rows.learned)[0].detach())
        finally:
            made.adapter.spec = spec
            made.adapter.dropout_generator = None

    plain = float(made.loss(tensors, rows.learned)[0].detach())
    assert run(None) == plain
    assert run(1) == run(1) != plain
    assert run(1) != run(2)


def gradient_by_differences(function: Callable[[], float], place: torch.Tensor) -> float:
    step = 1e-2
    before = float(place)
    place.fill_(before + step)
    above = function()
    place.fill_(before - step)
    below = function()
    place.fill_(before)
    return (above - below) / (2 * step)


def test_gradients_of_the_fused_layer_are_those_of_finite_differences_under_dropout() -> None:
    rows = random_rows([30, 20], seed=9)
    made = network("llama")
    tensors = make_bin(rows, Bin((0, 1), 64), Masks())
    old = made.adapter.spec
    made.adapter.spec = LoraSpec(rank=4, alpha=8.0, dropout=0.25)

    def loss() -> torch.Tensor:
        made.adapter.dropout_generator = torch.Generator().manual_seed(11)
        return made.loss(tensors, rows.learned)[0]

    try:
        made.adapter.grads.zero_()
        loss().backward()  # type: ignore[no-untyped-call]
        largest = made.adapter.grads.abs().topk(5).indices
        for index in largest.tolist():
            estimate = gradient_by_differences(
                lambda: float(loss().detach()), made.adapter.compute[index]
            )
            assert estimate == pytest.approx(float(made.adapter.grads[index]), rel=0.05)
    finally:
        made.adapter.spec = old
        made.adapter.dropout_generator = None
