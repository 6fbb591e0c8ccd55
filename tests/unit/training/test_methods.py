"""Every method's gradient is the plain one's, and a run of any method ends with the same bytes
whether or not it was stopped on its way."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_run import chat_rows, make_run, make_shards, read_events, write_spec
from torch.nn import functional

from afina.data.shards import Shards
from afina.domain.bins import bin_capacities
from afina.domain.methods import EarlyStopping
from afina.domain.mixing import mixed_key
from afina.domain.runs import LoraSpec, OptimizerSpec, ParentSpec, RunPaths, RunSpec, TuneSpec
from afina.model.merge import merge
from afina.model.own_weights import find_blocks
from afina.model.packed import Masks
from afina.training.bins import Rows, plan_bins
from afina.training.given import read_spec
from afina.training.methods import build_network
from afina.training.network import Network
from afina.training.optimizer import AdamW
from afina.training.preferences import (
    PreferenceStepper,
    pair_bins,
    reference_logs,
    row_logs,
)
from afina.training.run import Hooks, run_directory
from afina.training.signals import Interrupted, Stop

pytestmark = pytest.mark.long

BLOCKS = TuneSpec("blocks", layers=1)
HEAD = TuneSpec("blocks", layers=2, norm_and_head=True)
FULL = TuneSpec("full")


def never() -> bool:
    return False


def paired_rows(count: int) -> list[dict[str, Any]]:
    """Chats of which each two differ in the last answer alone: what pairs look like in shards."""
    found = []
    for row, other in zip(chat_rows(count), chat_rows(count, seed=9), strict=True):
        for message in row["messages"][:-1]:
            if message["role"] == "assistant":
                message["weight"] = 0
        rejected = {"messages": [*row["messages"][:-1], other["messages"][-1]]}
        found += [row, rejected]
    return found


def make_pairs(root: Path, pairs: int = 8, **changes: Any) -> RunSpec:
    spec = make_run(root, rows=2, **changes)
    model = Path(spec.base.path)
    training = make_shards(model, paired_rows(pairs), root.parent / f"{root.name}-pairs")
    valid = make_shards(model, paired_rows(3), root.parent / f"{root.name}-valid-pairs")
    spec = replace(
        spec,
        training=training,
        validation=valid,
        method="dpo",
        beta=0.5,
        batch_size=3,
        optimizer=OptimizerSpec(5e-3, 1, 6),
        bin_capacities=bin_capacities(2 * training.longest_row),
    )
    shutil.rmtree(root)
    write_spec(root, spec)
    return spec


def gradient(network: Network, rows: Rows, capacities: tuple[int, ...]) -> torch.Tensor:
    network.adapter.grads.zero_()
    for packed in plan_bins(rows, range(len(rows)), capacities):
        loss, _, _ = network.loss(network.make_bin(rows, packed, Masks()), 100)
        loss.backward()  # type: ignore[no-untyped-call]
    return network.adapter.grads.clone()


def plain_gradient(network: Network, names: list[str], rows: Rows) -> torch.Tensor:
    """The same by transformers' own attention, a row at a time, full logits, torch's own .grad."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        network.model.config._name_or_path, dtype=torch.float32, attn_implementation="eager"
    )
    if "lm_head.weight" in names:
        head = model.lm_head.weight.detach().clone()
        model.lm_head.weight = torch.nn.Parameter(head)
    for number in range(len(rows)):
        ids, learned = rows.row(number)
        wide = torch.from_numpy(ids).long()
        logits = model(input_ids=wide[None]).logits[0]
        losses = functional.cross_entropy(logits[:-1], wide[1:], reduction="none")
        (losses[torch.from_numpy(learned[1:])].sum() / 100).backward()  # type: ignore[no-untyped-call]
    found = dict(model.named_parameters())
    return torch.cat([found[name].grad.flatten() for name in names])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("tune", [BLOCKS, HEAD, FULL], ids=["block", "head", "full"])
def test_gradients_of_own_weights_are_those_of_plain_autograd_with_or_without_the_kept_outputs(
    tmp_path: Path, tune: TuneSpec, architecture: str
) -> None:
    make_run(tmp_path / "run", rows=7, architecture=architecture, tune=tune)
    spec = read_spec(RunPaths(tmp_path / "run"))
    network = build_network(spec)
    shards = Shards.open(Path(spec.training.path))
    plain = plain_gradient(network, network.adapter.names, shards)  # type: ignore[attr-defined]
    whole = gradient(network, shards, spec.bin_capacities)
    assert difference(whole, plain) < 2e-6
    kept = network.prepare(shards, tmp_path / "frozen", never)
    assert (kept is shards) == (tune.kind == "full")
    assert difference(gradient(network, kept, spec.bin_capacities), whole) < 1e-6


def test_outputs_of_the_frozen_part_are_the_same_bytes_wherever_their_making_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afina.training import frozen

    monkeypatch.setattr(frozen, "CHUNK_ROWS", 2)
    monkeypatch.setattr(frozen, "RECORD_EVERY", 1)
    make_run(tmp_path / "run", rows=9, tune=BLOCKS)
    spec = read_spec(RunPaths(tmp_path / "run"))
    network = build_network(spec)
    shards = Shards.open(Path(spec.training.path))
    network.prepare(shards, tmp_path / "one", never)
    calls = iter([False, False, True])
    with pytest.raises(Interrupted):
        network.prepare(shards, tmp_path / "two", lambda: next(calls))
    network.prepare(shards, tmp_path / "two", never)
    one, two = ((tmp_path / name / "outputs.bin").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one) > 1000


def test_a_pairs_loss_and_gradient_are_those_of_the_formula(tmp_path: Path) -> None:
    make_pairs(tmp_path / "run", pairs=5)
    spec = read_spec(RunPaths(tmp_path / "run"))
    network = build_network(spec)
    rows = Shards.open(Path(spec.training.path))
    reference = reference_logs(network, rows, spec.bin_capacities, never)
    names = network.adapter.names  # type: ignore[attr-defined]
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        network.adapter.master_views(name)[1].normal_(0, 0.1, generator=generator)  # type: ignore[attr-defined]
    network.adapter.refresh()
    stepper = PreferenceStepper(
        spec, network, AdamW(spec.optimizer, network.adapter.masters), rows, reference, None
    )
    network.adapter.grads.zero_()
    packed = pair_bins(rows, range(5), spec.bin_capacities)
    total = 0.0
    for one in packed:
        _, found = stepper._measure(rows, one, reference.view(-1, 2))
        found.losses.sum().backward()  # type: ignore[no-untyped-call]
        total += float(found.losses.detach().sum())
    ours = network.adapter.grads.clone()

    network.adapter.grads.zero_()
    logs = []
    for number in range(len(rows)):
        single = plan_bins(rows, [number], spec.bin_capacities, share=False)[0]
        tensors = network.make_bin(rows, single, Masks())
        each = torch.log_softmax(network.logits(tensors), -1).gather(1, tensors.targets_K[:, None])
        logs.append((each[:, 0] * tensors.weights_K).sum())
    ratio = torch.stack(logs) - reference
    loss = -functional.logsigmoid(spec.beta * (ratio[0::2] - ratio[1::2])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    assert difference(ours, network.adapter.grads) < 2e-6


def test_dropout_masks_pairs_as_it_masks_rows_and_not_what_they_are_measured_against(
    tmp_path: Path,
) -> None:
    def gradient(dropout: float) -> tuple[torch.Tensor, PreferenceStepper]:
        root = tmp_path / f"run-{dropout}-{len(list(tmp_path.iterdir()))}"
        made = make_pairs(root, pairs=4)
        spec = replace(made, lora=replace(made.lora, dropout=dropout), batch_size=4)
        network = build_network(spec)
        rows = Shards.open(Path(spec.training.path))
        reference = reference_logs(network, rows, spec.bin_capacities, never)
        adapter = network.adapter
        for number, name in enumerate(adapter.names):  # type: ignore[attr-defined]
            generator = torch.Generator().manual_seed(number)
            adapter.master_views(name)[1].normal_(0, 0.1, generator=generator)  # type: ignore[attr-defined]
        adapter.refresh()
        optimizer = AdamW(spec.optimizer, adapter.masters)
        stepper = PreferenceStepper(spec, network, optimizer, rows, reference, None)
        adapter.grads.zero_()
        stepper._part(2, never)
        return adapter.grads.clone(), stepper

    masked, stepper = gradient(0.5)
    whole, _ = gradient(0.0)
    again, _ = gradient(0.5)
    assert torch.equal(masked, again)
    assert difference(masked, whole) > 0.05

    spec, network, rows = stepper.spec, stepper.network, stepper.rows
    network.adapter.grads.zero_()
    bins = pair_bins(rows, stepper._rows_of(2), stepper.capacities.planned, share=False)
    for number, one in enumerate(bins):
        key = mixed_key(spec.seed, 2, 2, number)
        network.adapter.dropout_generator = torch.Generator().manual_seed(key)
        logs = row_logs(network, rows, one, Masks())
        pairs = sorted({row // 2 for row in one.rows})
        ratio = torch.stack([logs[2 * p] - logs[2 * p + 1] for p in pairs])
        ratio = ratio - (stepper._reference[pairs, 0] - stepper._reference[pairs, 1])
        (-functional.logsigmoid(spec.beta * ratio).sum() / 4).backward()  # type: ignore[no-untyped-call]
    assert difference(masked, network.adapter.grads) < 2e-6


def published(root: Path, spec: RunSpec) -> bytes:
    result = run_directory(root)
    assert result is not None
    folder = root / result.checkpoints[-1].directory
    name = "adapter_model.safetensors" if spec.tune.kind == "lora" else "weights.safetensors"
    return (folder / name).read_bytes()


@pytest.mark.parametrize("method", ["blocks", "full", "dpo"])
def test_a_run_of_any_method_ends_with_the_same_bytes_after_a_stop_and_a_pause(
    tmp_path: Path, method: str
) -> None:
    root = tmp_path / "run"
    if method == "dpo":
        spec = make_pairs(root)
    else:
        tune = replace(HEAD, kind=method)  # type: ignore[arg-type]
        spec = make_run(root, tune=tune, optimizer=OptimizerSpec(1e-3, 1, 6))
    twin = tmp_path / "twin"
    shutil.copytree(root, twin)
    whole = published(root, spec)
    stop = Stop()
    hooks = Hooks(lambda point, step: stop.ask() if (point, step) == ("step", 3) else None)
    assert run_directory(twin, stop, hooks=hooks) is None
    control = RunPaths(twin).control
    control.write_text('{"wish": "pause"}')
    paused = run_directory(twin)
    assert paused is not None
    assert (paused.outcome, len(paused.checkpoints), len(paused.parity)) == ("paused", 1, 3)
    control.write_text('{"wish": null}')
    assert published(twin, spec) == whole
    assert (twin / "row_losses.csv").read_bytes() == (root / "row_losses.csv").read_bytes()
    told = [(e.kind, e.data) for e in read_events(root)]
    assert told == [(e.kind, e.data) for e in read_events(twin)]


def test_a_run_on_pairs_tells_rewards_and_learns_to_prefer(tmp_path: Path) -> None:
    make_pairs(tmp_path / "run")
    run_directory(tmp_path / "run")
    steps = [e.data for e in read_events(tmp_path / "run") if e.kind == "step"]
    assert steps[0]["train_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert steps[0]["train_reward_margin"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["train_loss"] < steps[0]["train_loss"]
    assert steps[-1]["train_reward_margin"] > 0.05
    assert {"full_valid_loss", "full_valid_reward_accuracy", "full_valid_reward_margin"} <= set(
        steps[-1]
    )


def test_a_run_goes_on_from_the_weights_of_its_parent(tmp_path: Path) -> None:
    spec = make_run(tmp_path / "one")
    result = run_directory(tmp_path / "one")
    assert result is not None
    folder = tmp_path / "one" / result.checkpoints[-1].directory
    last = read_events(tmp_path / "one")[-3].data
    parent = ParentSpec("0" * 64, str(folder), {})
    write_spec(tmp_path / "two", replace(spec, parent=parent, validation=None))
    run_directory(tmp_path / "two")
    first = next(e.data for e in read_events(tmp_path / "two") if e.kind == "step")
    begun = next(e.data for e in read_events(tmp_path / "one") if e.kind == "step")
    assert first["train_loss"] < begun["train_loss"] - 0.2
    assert last is not None


def test_early_stopping_ends_the_run_and_the_best_epoch_is_the_model(tmp_path: Path) -> None:
    spec = make_run(
        tmp_path / "run",
        epochs=6,
        checkpoints_kept=1,
        optimizer=OptimizerSpec(0.3, 0, 18),
        early_stopping=EarlyStopping(patience=2, min_delta=10.0),
        best_checkpoint=True,
    )
    result = run_directory(tmp_path / "run")
    assert result is not None
    epochs = [
        e.data["full_valid_loss"]
        for e in read_events(tmp_path / "run")
        if e.kind == "step" and "full_valid_loss" in e.data
    ]
    best = int(np.argmin(epochs))
    assert result.stopped_early
    assert len(epochs) == 3 < spec.epochs
    assert result.checkpoints[-1].step == (best + 1) * 3
    assert {c.step for c in result.checkpoints} == {(best + 1) * 3, 9}


def test_the_losses_of_rows_name_lines_and_the_row_that_stands_out(tmp_path: Path) -> None:
    rows = [{"messages": chat_rows(1)[0]["messages"]} for _ in range(11)]
    odd = {"role": "assistant", "content": "ZZQ~{}|@ \\ 0x9F #!"}
    rows[4] = {"messages": [rows[4]["messages"][0], odd]}
    spec = make_run(tmp_path / "run", lora=LoraSpec(rank=4, alpha=8.0))
    training = make_shards(Path(spec.base.path), rows, tmp_path / "odd")
    shutil.rmtree(tmp_path / "run")
    write_spec(tmp_path / "run", replace(spec, training=training, validation=None, epochs=3))
    run_directory(tmp_path / "run")
    text = (tmp_path / "run" / "row_losses.csv").read_text()
    told = list(csv.DictReader(text.splitlines()))
    assert [int(row["line"]) for row in told] == list(range(1, 12))
    assert all(float(row["first_epoch_loss"]) > 0 for row in told)
    assert [int(row["line"]) for row in told if row["suspect"] == "1"] == [5]


@pytest.mark.parametrize("tune", [BLOCKS, HEAD, FULL], ids=["block", "head", "full"])
def test_a_merged_model_of_own_weights_says_what_the_trainer_said(
    tmp_path: Path, tune: TuneSpec
) -> None:
    from transformers import AutoModelForCausalLM

    spec = make_run(tmp_path / "run", tune=tune, optimizer=OptimizerSpec(1e-3, 1, 6))
    result = run_directory(tmp_path / "run")
    assert result is not None
    folder = tmp_path / "run" / result.checkpoints[-1].directory
    merge(Path(spec.base.path), folder, tmp_path / "merged")
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "merged").glob("*.safetensors")}
    assert modes == {0o644}, "another user may not read what was taken away"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    row = result.parity[0]
    ids = torch.tensor([[*row.prompt_ids, *row.ids]])
    logits = model(ids).logits[0].detach().float()
    logs = torch.log_softmax(logits, -1)[len(row.prompt_ids) - 1 :]
    said = [float(logs[place, token]) for place, token in enumerate(row.ids)]
    assert said == pytest.approx(list(row.logprobs), abs=2e-4)


@pytest.mark.parametrize(("architecture", "fused"), [("llama", 3), ("mistral", 3), ("gemma3", 0)])
def test_layers_with_these_parts_alone_are_one_operation_and_others_keep_their_own_code(
    tmp_path: Path, architecture: str, fused: int
) -> None:
    make_run(tmp_path / "run", rows=7, architecture=architecture, tune=FULL)
    network = build_network(read_spec(RunPaths(tmp_path / "run")))
    _, blocks = find_blocks(network.model)
    assert sum("forward" in vars(block) for block in blocks) == fused
