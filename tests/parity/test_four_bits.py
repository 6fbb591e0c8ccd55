"""A base in 4 bits: weights that were born so come back to the bit, and training over codes is
training over the weights that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parity.test_architectures import Trained, assert_says_the_same, said_by
from tests.tiny_run import make_run, read_events
from torch import nn

from afina.data.shards import Shards
from afina.domain.runs import LoraSpec, OptimizerSpec, RunPaths, RunSpec, TuneSpec
from afina.model.base import load_base
from afina.model.four_bits import GROUP, FourBitLinear, dense, hold_in_four_bits, quantised
from afina.model.packed import Masks
from afina.training.bins import plan_bins
from afina.training.given import read_spec
from afina.training.methods import build_network
from afina.training.network import DoraNetwork, TrainedNetwork
from afina.training.run import run_directory

FOUR = TuneSpec("lora", base_bits=4)

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def back(weight: torch.Tensor) -> torch.Tensor:
    return dense(*quantised(weight), weight.dtype).view_as(weight)


def born_in_four_bits(rows: int, columns: int, seed: int) -> torch.Tensor:
    """What a Q4_1 file holds, in bf16."""
    generator = torch.Generator().manual_seed(seed)
    groups = rows * columns // GROUP
    spread = torch.randn(groups, 1, generator=generator).abs().add(0.1)
    codes = torch.randint(0, 16, (groups, GROUP), generator=generator)
    codes[:, 0], codes[:, 1] = 0, 15
    scale, low = (spread / 60).half().float(), (-spread / 9).half().float()
    return (codes * scale + low).to(torch.bfloat16).view(rows, columns)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_weight_that_was_born_in_four_bits_comes_back_to_the_bit(seed: int) -> None:
    weight = born_in_four_bits(64, 256, seed)
    wrong = (back(weight) != weight).view(-1, GROUP).any(1).float().mean()
    assert float(wrong) <= 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_any_weight_comes_back_within_a_step_of_its_group_and_constants_exactly(
    dtype: torch.dtype,
) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[0] = 0
    weight[1] = 0.5
    weight[2] = -1e-8
    found = back(weight)
    wide = weight.float().view(-1, GROUP)
    step = (wide.amax(1) - wide.amin(1)) / 15
    errors = (found.float().view(-1, GROUP) - wide).abs().amax(1)
    assert bool((errors <= 0.75 * step + 0.01 * wide.abs().amax(1) + 1e-7).all())
    assert torch.equal(found[:2], weight[:2])
    assert bool(found.isfinite().all())
    assert float((found - weight).float().norm() / weight.float().norm()) < 0.1


def test_rows_that_are_no_whole_groups_and_the_head_keep_their_precision(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {"odd": nn.Linear(40, 8), "even": nn.Linear(64, 8), "h": nn.Linear(64, 8)}
    )
    assert hold_in_four_bits(model, keep=[model["h"]]) == 64 * 8
    assert [type(m).__name__ for m in model.values()] == ["Linear", "FourBitLinear", "Linear"]
    held = model["even"]
    assert isinstance(held, FourBitLinear)
    kept = sum(b.numel() * b.element_size() for b in held.buffers())
    assert kept * 8 == 5 * 64 * 8
    x = torch.randn(3, 64, requires_grad=True)
    held(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, held.weight.sum(0).expand(3, -1), atol=1e-5)


def over_dense_weights(spec: RunSpec, kind: type[TrainedNetwork]) -> TrainedNetwork:
    """The same network over the weights that the codes stand for, held plainly."""
    base = load_base(Path(spec.base.path), spec.precision)
    for name, module in base.model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.weight.data = back(module.weight.data)
    return kind(base, spec.lora, spec.seed)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_over_codes_are_those_over_the_weights_they_stand_for(
    tmp_path: Path, kind: Any, dropout: float
) -> None:
    lora = LoraSpec(rank=4, alpha=8.0, dropout=dropout)
    make_run(tmp_path / "run", rows=6, lora=lora, tune=TuneSpec(kind, base_bits=4))
    spec = read_spec(RunPaths(tmp_path / "run"))
    rows = Shards.open(Path(spec.training.path))
    found = []
    plain = over_dense_weights(spec, DoraNetwork if kind == "dora" else TrainedNetwork)
    for network in (build_network(spec), plain):
        adapter = network.adapter
        generator = torch.Generator().manual_seed(4)
        for name in adapter.names:  # type: ignore[attr-defined]
            b = adapter.master_views(name)[1]  # type: ignore[attr-defined]
            b.normal_(0, 0.1, generator=generator)
        adapter.refresh()
        for packed in plan_bins(rows, range(len(rows)), spec.bin_capacities, share=not dropout):
            if dropout:
                adapter.dropout_generator = torch.Generator().manual_seed(1)
            loss, _, _ = network.loss(network.make_bin(rows, packed, Masks()), 100)
            loss.backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([adapter.grads[place] for place in places(adapter)]))
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-6


def places(adapter: Any) -> list[Any]:
    """Where gradients lie, matrix by matrix: layers that are one product lie in another order."""
    index = torch.arange(len(adapter.grads))
    both = [side.flatten() for name in adapter.names for side in adapter.pair_in(index, name)]
    lengths = getattr(adapter, "lengths_in", None)
    return both + ([lengths(index, name) for name in adapter.names] if lengths else [])


def test_peft_over_the_same_weights_says_what_the_trainer_said(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec = make_run(tmp_path / "run", rows=8, tune=FOUR, optimizer=OptimizerSpec(3e-2, 0, 4))
    result = run_directory(tmp_path / "run")
    assert result is not None
    made = Trained(tmp_path / "run", spec, result)
    losses = [e.data["train_loss"] for e in read_events(made.root) if e.kind == "step"]
    assert losses[-1] < losses[0]
    model = AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float32)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.weight.data = back(module.weight.data)
    judge = PeftModel.from_pretrained(model, made.folder).eval()
    assert_says_the_same(said_by(judge, made), made)
