"""An engine without its process, for tests: a data directory with a tiny base and random adapters,
and a lane whose steps the test makes itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import make_tiny_model

from afina.domain.clock import ManualClock
from afina.domain.manifests import OWN_WEIGHTS, Manifest, TuneKind, blob_path
from afina.domain.models import BaseModel
from afina.domain.runs import LoraSpec
from afina.inside_settings import EngineSettings
from afina.model.base import load_base
from afina.model.kernels import library as kernels
from afina.model.kernels import machine
from afina.model.own_weights import weights_bytes
from afina.model.peft_files import CONFIG, WEIGHTS, AdapterConfig, adapter_bytes
from afina.serving.adapters import Adapter, AdapterBank
from afina.serving.blocks import BlockAllocator
from afina.serving.cache import KvCache
from afina.serving.journal import Journal
from afina.serving.lane import Lane
from afina.serving.library import Library
from afina.serving.runner import Runner
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Prompt, Sequence
from afina.serving.small_weights import Bits
from afina.settings import Settings

LIMITS = Limits(max_batch=32, max_waiting=64, max_adapters=32)
ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_data(folder: Path, precision: str = "fp32", **shape: Any) -> tuple[Settings, BaseModel]:
    """Settings of a data directory that holds the tiny base `tiny`."""
    settings = Settings.load(
        data=folder,
        engine=EngineSettings(precision=precision, cache_tokens=8192, threads=1),  # type: ignore[arg-type]
    )
    record = make_tiny_model(settings.models / "tiny", base_id="tiny", **shape)
    return settings, record


def put_adapter(
    settings: Settings,
    record: BaseModel,
    seed: int,
    *,
    rank: int = 8,
    strength: float = 1.0,
    targets: tuple[str, ...] = ALL_LAYERS,
) -> str:
    """A random adapter among the blobs, loud enough to change answers; its manifest's hash."""
    folder = make_adapter(settings.models / record.id, seed, rank, strength, targets)
    files = {name: put_blob(settings, raw) for name, raw in folder.items()}
    manifest = Manifest("lora", record.id, record.sha256, files, "t" * 64, "d" * 64)
    return put_blob(settings, manifest.to_bytes())


def make_adapter(
    base: Path, seed: int, rank: int, strength: float, targets: tuple[str, ...]
) -> dict[str, bytes]:
    """The two files of a random adapter in PEFT's format, by name."""
    loaded = load_base(base, "fp32")
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, module in loaded.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in targets:
            a = torch.randn(rank, module.in_features, generator=generator)
            b = torch.randn(module.out_features, rank, generator=generator)
            pairs[name] = (a / module.in_features**0.5, strength * b / rank**0.5)
    spec = replace(LoraSpec(), rank=rank, alpha=float(rank), target_modules=targets)
    return {CONFIG: AdapterConfig.of(spec, "tiny").to_bytes(), WEIGHTS: adapter_bytes(pairs)}


def put_own(
    settings: Settings, record: BaseModel, kind: TuneKind, seed: int, wanted: tuple[str, ...]
) -> str:
    """A tune with weights of its own among the blobs: those of the base whose names begin with one
    of `wanted`, moved at random; its manifest's hash."""
    model = load_base(settings.models / record.id, "fp32").model
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: (p + 0.1 * torch.randn(p.shape, generator=generator)).to(torch.bfloat16)
        for name, p in model.named_parameters(remove_duplicate=kind == "full")
        if name.startswith(wanted)
    }
    files = {OWN_WEIGHTS: put_blob(settings, weights_bytes(weights))}
    manifest = Manifest(kind, record.id, record.sha256, files, "t" * 64, "d" * 64)
    return put_blob(settings, manifest.to_bytes())


def put_blob(settings: Settings, raw: bytes) -> str:
    """Writes bytes among the blobs; their hash."""
    sha256 = hashlib.sha256(raw).hexdigest()
    path = blob_path(settings.blobs, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return sha256


def make_lane(
    folder: Path,
    precision: str = "fp32",
    limits: Limits = LIMITS,
    blocks: int = 512,
    bits: Bits | None = None,
) -> Lane:
    """A lane for the base in `folder`; its journal is a list in `lane.meter_log`."""
    from afina.text.tokenizer import ChatTokenizer

    base = load_base(folder, precision)  # type: ignore[arg-type]
    allocator = BlockAllocator(blocks, 16)
    return Lane(
        folder.name,
        Runner(base, KvCache(base.layers, blocks, 16), AdapterBank(64), None, bits),
        Scheduler(allocator, limits),
        ChatTokenizer.load(folder),
        clock=ManualClock(),
        meter=lambda record: None,
    )


@contextmanager
def torch_alone() -> Iterator[None]:
    """As if this machine had no kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "kernels_wanted", lambda: "off")
        kernels.loaded.cache_clear()
        try:
            yield
        finally:
            kernels.loaded.cache_clear()


def load_adapter(settings: Settings, lane: Lane, sha256: str) -> Adapter:
    """Reads an adapter as the engine does, and puts it into the lane's bank."""
    library = Library(settings, Journal(settings.journal), ManualClock())
    adapter = library.load_adapter(lane, sha256)
    lane.runner.bank.add(adapter, 0.0)
    return adapter


@dataclass
class Asked:
    """A request for `new_tokens` greedy tokens, and the logits that chose each of them."""

    ids: list[int]
    new_tokens: int = 8
    adapter: str | None = None
    forced: list[int] | None = None
    tokens: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)


def ask_all(lane: Lane, asked: Many[Asked], *, together: bool = True) -> None:
    """Runs requests through scheduler and runner, in one batch or one after the other."""
    groups = [list(asked)] if together else [[one] for one in asked]
    for group in groups:
        by_id = {f"r{i}": one for i, one in enumerate(group)}
        for name, one in by_id.items():
            prompt = Prompt(name, one.ids, one.adapter)
            prompt.sequences = [Sequence(prompt, 0, one.new_tokens)]
            lane.scheduler.submit(prompt)
        while not lane.scheduler.is_idle:
            _step(lane, by_id)


def _step(lane: Lane, by_id: dict[str, Asked]) -> None:
    plan = lane.scheduler.plan()
    out = lane.runner.run(plan)
    for chunk in plan.chunks:
        lane.scheduler.computed(chunk)
    for sequence, row in zip(out.sequences, out.logits, strict=True):
        one = by_id[sequence.prompt.request_id]
        token = int(row.argmax()) if one.forced is None else one.forced[len(one.tokens)]
        one.tokens.append(token)
        one.logits.append(row.float().clone())
        lane.scheduler.sampled(sequence, token)
        if len(one.tokens) == one.new_tokens:
            lane.scheduler.finish(sequence)
