"""DoRA: our loss and gradients are those of PEFT's own layers, and what is published says the same
in PEFT, merged and in the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.test_architectures import (
    Trained,
    adapters,
    assert_engine_says_the_same,
    assert_says_the_same,
    published,
    said_by,
    transformers_model,
)
from tests.tiny_run import make_run, read_events, write_spec
from torch.nn import functional

from afina.data.shards import Shards
from afina.domain.clock import ManualClock
from afina.domain.runs import LoraSpec, OptimizerSpec, ParentSpec, RunPaths, RunSpec, TuneSpec
from afina.errors import BaseRefused, InvalidRequest
from afina.model.gguf_export import AdapterFiles, Label, write_adapter
from afina.model.merge import merge
from afina.model.packed import Masks
from afina.model.peft_files import CONFIG, WEIGHTS, read_adapter, read_dora
from afina.serving.journal import Journal
from afina.serving.library import Library
from afina.training.bins import plan_bins
from afina.training.given import read_spec
from afina.training.methods import build_network
from afina.training.network import DoraNetwork
from afina.training.run import run_directory

DORA = TuneSpec("dora")

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def moved_network(spec: RunSpec) -> DoraNetwork:
    """A network whose matrices and lengths are no longer those of step 0."""
    network = build_network(spec)
    assert isinstance(network, DoraNetwork)
    generator = torch.Generator().manual_seed(4)
    for name in network.adapter.names:
        network.adapter.master_views(name)[1].normal_(0, 0.05, generator=generator)
        lengths = network.adapter.lengths_in(network.adapter.masters, name)
        lengths.mul_(1 + 0.1 * torch.randn(lengths.shape, generator=generator))
    network.adapter.refresh()
    return network


def peft_model(base: Path, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(transformers_model(base), folder, is_trainable=True).eval()


def save_masters(network: DoraNetwork, folder: Path) -> None:
    """The adapter as PEFT reads it, unrounded."""
    from afina.model.peft_files import adapter_bytes

    adapter = network.adapter
    pairs = {name: adapter.master_views(name) for name in adapter.names}
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(adapter_bytes(pairs, adapter.magnitudes()))
    (folder / CONFIG).write_bytes(network.config.to_bytes())


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_loss_and_gradients_are_those_of_peft_on_the_same_rows(
    tmp_path: Path, architecture: str
) -> None:
    make_run(tmp_path / "run", rows=7, architecture=architecture, tune=DORA)
    spec = read_spec(RunPaths(tmp_path / "run"))
    network = moved_network(spec)
    rows = Shards.open(Path(spec.training.path))
    adapter = network.adapter
    total = 0.0
    for packed in plan_bins(rows, range(len(rows)), spec.bin_capacities):
        loss, _, _ = network.loss(network.make_bin(rows, packed, Masks()), 100)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    save_masters(network, tmp_path / "adapter")
    judge = peft_model(Path(spec.base.path), tmp_path / "adapter")
    theirs = 0.0
    for number in range(len(rows)):
        ids, learned = rows.row(number)
        wide = torch.from_numpy(ids).long()
        logits = judge(input_ids=wide[None], use_cache=False).logits[0]
        losses = functional.cross_entropy(logits[:-1], wide[1:], reduction="none")
        part = losses[torch.from_numpy(learned[1:])].sum() / 100
        part.backward()  # type: ignore[no-untyped-call]
        theirs += float(part.detach())
    assert total == pytest.approx(theirs, rel=1e-6)
    found = dict(judge.named_parameters())
    expected = torch.zeros_like(adapter.grads)
    for name in adapter.names:
        prefix = f"base_model.model.{name}.lora_"
        for place, side in zip(adapter.pair_in(expected, name), ("A", "B"), strict=True):
            place.copy_(found[f"{prefix}{side}.default.weight"].grad)
        magnitude = found[f"{prefix}magnitude_vector.default.weight"].grad
        adapter.lengths_in(expected, name).copy_(magnitude)
    for part in (adapter.grads, expected):
        assert float(part.norm()) > 0
    assert float((adapter.grads - expected).norm() / expected.norm()) < 2e-6


def test_at_step_0_the_model_is_its_base_and_dropout_masks_what_is_learned_alone(
    tmp_path: Path,
) -> None:
    make_run(tmp_path / "run", rows=4, tune=DORA, lora=LoraSpec(rank=4, alpha=8.0, dropout=0.5))
    spec = read_spec(RunPaths(tmp_path / "run"))
    fresh, moved = build_network(spec), moved_network(spec)
    rows = Shards.open(Path(spec.training.path))
    packed = plan_bins(rows, range(len(rows)), spec.bin_capacities, share=False)[0]
    tensors = fresh.make_bin(rows, packed, Masks())

    def loss(network: Any, key: int | None) -> float:
        generator = None if key is None else torch.Generator().manual_seed(key)
        network.adapter.dropout_generator = generator
        return float(network.loss(tensors, 100)[0].detach())

    assert loss(fresh, 1) == pytest.approx(loss(fresh, None), rel=1e-5)
    assert loss(moved, 1) == loss(moved, 1) != loss(moved, 2)


def test_gradients_under_dropout_are_those_of_finite_differences(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=4, tune=DORA, lora=LoraSpec(rank=4, alpha=8.0, dropout=0.25))
    network = moved_network(read_spec(RunPaths(tmp_path / "run")))
    adapter = network.adapter
    name = adapter.names[0]
    base = network._layer(name).base
    x = torch.randn(5, base.in_features, generator=torch.Generator().manual_seed(1))
    x = x.requires_grad_()
    pull = torch.randn(5, base.out_features, generator=torch.Generator().manual_seed(2))

    def value() -> torch.Tensor:
        adapter.dropout_generator = torch.Generator().manual_seed(11)
        return (adapter.linear(base, name, x) * pull).sum()

    adapter.grads.zero_()
    value().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    lengths, norms = adapter._lengths[name], adapter.norms[name]
    views = adapter.views[name]
    given = (
        (x.data, x.grad),
        (views.a, views.grad_a),
        (views.b, views.grad_b),
    )
    for place, gradient in given:
        index = int(gradient.abs().argmax())
        assert float(gradient.flatten()[index]) == pytest.approx(
            differences(value, place.view(-1), index), rel=2e-2
        )
    gradient = adapter.lengths_in(adapter.grads, name)
    gain = adapter.gains[name]
    index = int((gradient * norms).abs().argmax())
    of_gain = float(gradient[index] * norms[index])
    assert of_gain == pytest.approx(differences(value, gain, index), rel=2e-2)
    assert len(lengths) == base.out_features


def differences(value: Any, place: torch.Tensor, index: int) -> float:
    step = 1e-2
    before = float(place[index])
    place[index] = before + step
    above = float(value().detach())
    place[index] = before - step
    below = float(value().detach())
    place[index] = before
    return (above - below) / (2 * step)


def trained_dora(root: Path, architecture: str) -> Trained:
    spec = make_run(
        root,
        rows=8,
        architecture=architecture,
        lora=adapters(architecture),
        tune=DORA,
        optimizer=OptimizerSpec(3e-2, 0, 4),
    )
    result = run_directory(root)
    assert result is not None
    return Trained(root, spec, result)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi", "gemma3"])
def test_peft_the_merged_folder_and_the_engine_say_what_the_trainer_said(
    tmp_path: Path, architecture: str
) -> None:
    made = trained_dora(tmp_path / "run", architecture)
    losses = [e.data["train_loss"] for e in read_events(made.root) if e.kind == "step"]
    assert losses[-1] < losses[0]
    assert_says_the_same(said_by(peft_model(made.base, made.folder), made), made)
    merge(made.base, made.folder, tmp_path / "merged")
    assert_says_the_same(said_by(transformers_model(tmp_path / "merged"), made), made)
    settings, manifest = published(made, tmp_path, "dora")
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(made.spec.base.id)
    own = library.load_own(base, manifest)
    assert_engine_says_the_same(own.lane, made, manifest)
    assert own.lane.runner.layers.size == 0
    assert_moved(base, made)


def assert_moved(lane: Any, made: Trained) -> None:
    with pytest.raises(AssertionError):
        assert_engine_says_the_same(lane, made, None)


def test_a_run_goes_on_from_dora_with_its_lengths_and_ends_alike_after_a_stop(
    tmp_path: Path,
) -> None:
    made = trained_dora(tmp_path / "one", "llama")
    _, pairs, magnitudes = read_dora(made.folder / CONFIG, made.folder / WEIGHTS)
    norms = {name: float(m.norm()) for name, m in magnitudes.items()}
    spec = replace(made.spec, parent=ParentSpec("0" * 64, str(made.folder), {}), validation=None)
    network = build_network(spec)
    assert isinstance(network, DoraNetwork)
    network.load_files(made.folder, into_masters=True)
    assert {n: float(m.norm()) for n, m in network.adapter.magnitudes().items()} == norms
    write_spec(tmp_path / "two", spec)
    result = run_directory(tmp_path / "two")
    assert result is not None
    first = next(e.data for e in read_events(tmp_path / "two") if e.kind == "step")
    begun = next(e.data for e in read_events(tmp_path / "one") if e.kind == "step")
    assert first["train_loss"] < begun["train_loss"]
    assert len(pairs) == len(norms)


def test_a_dora_adapter_is_not_taken_for_a_lora_one_nor_the_other_way_round(
    tmp_path: Path,
) -> None:
    made = trained_dora(tmp_path / "run", "llama")
    with pytest.raises(InvalidRequest, match="use_dora"):
        read_adapter(made.folder / CONFIG, made.folder / WEIGHTS)
    config = json.loads((made.folder / CONFIG).read_text())
    plain = tmp_path / CONFIG
    plain.write_text(json.dumps({**config, "use_dora": False}))
    with pytest.raises(InvalidRequest, match="use_dora"):
        read_dora(plain, made.folder / WEIGHTS)
    with pytest.raises(InvalidRequest, match="no LoRA matrix"):
        read_adapter(plain, made.folder / WEIGHTS)
    files = AdapterFiles(made.folder / CONFIG, made.folder / WEIGHTS, made.base)
    with pytest.raises(BaseRefused, match="DoRA"):
        write_adapter(files, tmp_path / "adapter.gguf", Label("tuned"))
    assert not (tmp_path / "adapter.gguf").exists()
