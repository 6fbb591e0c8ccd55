"""The admission probe: does this base compute here what transformers' own attention computes?

Structure that lives in a mask alone (chunks, recurrence) would be silently wrong in packed
training, so a base is tuned and served only after short chats, longer than its window, gave the
same logits, gradients and decoding steps packed as in separate eager passes. Ends with a measured
training rate, which estimates use.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from torch import nn

from afina.domain.precision import BY_KERNELS, resolve_precision
from afina.domain.runs import LoraSpec, Precision
from afina.errors import BaseRefused
from afina.model.attention import AttentionRefused
from afina.model.base import DTYPES, LoadedBase, load_base
from afina.model.block import fuse_blocks
from afina.model.fused import fuse_frozen, fuse_head
from afina.model.kernels.library import library
from afina.model.lora import put_lora_layers
from afina.model.packed import Masks, PackedContext, group_spans
from afina.model.slots import AdvanceContext, PrefillContext, SlotCache
from afina.model.trained import TrainedAdapter

_LENGTHS: Final = (23, 41, 37)
_WINDOW: Final = 16
"""Sliding windows are narrowed to this, so that short chats are longer than they are."""
_DECODED: Final = 3
_CAPACITY: Final = 128
_RATE_CHATS: Final = (120, 130, 140, 110)
_BUSY: Final = 1.5
"""Waiting so many times the processor's own time is for other programs' sake."""
_RATE_CAPACITY: Final = 512
_LIMITS: Final[Mapping[Precision, tuple[float, float]]] = {
    "fp32": (2e-4, 2e-3),
    "bf16": (6e-2, 2e-1),
}
"""Largest difference of logits over the largest logit, and of gradients over their norm."""
_TARGETS: Final = (
    *LoraSpec().target_modules,
    "qkv_proj",
    "gate_up_proj",
    "query_key_value",
    "dense",
    "dense_h_to_4h",
    "dense_4h_to_h",
    "fc1",
    "fc2",
)
_RECURRENT: Final = ("mamba", "linear", "recurrent", "conv", "ssm", "rwkv", "delta", "chunked")


@dataclass(frozen=True)
class Probed:
    """What the probe found. `capabilities` go into the base's record."""

    refusal: str | None
    architecture: str
    parameters: int
    context_tokens: int
    capabilities: Mapping[str, Any]


def probe(folder: Path) -> Probed:
    """Probes the model in `folder`. What it cannot load or compute is a refusal, not an error."""
    asked = machine_precision()
    try:
        base = load_base(folder, _probe_precision(folder))
    except BaseRefused as error:
        return Probed(error.message, "", 0, 0, {"precision": asked})
    facts: dict[str, Any] = {"precision": asked, "hidden_size": base.hidden_size}
    refusal: str | None
    try:
        facts["lora_targets"] = list(lora_targets(base.model))
        refusal = _refuse_by_structure(base, facts["lora_targets"])
        if refusal is None:
            facts |= _compare(base, facts["lora_targets"])
            refusal = _refuse_by_numbers(base.precision, facts)
        if refusal is None:
            base, measured = _measured(base, folder, facts["lora_targets"])
            facts |= measured
    except AttentionRefused as error:
        refusal = str(error)
    except (ValueError, RuntimeError, NotImplementedError, TypeError, KeyError) as error:
        refusal = f"its network does not run here: {type(error).__name__}: {str(error)[:200]}"
    parameters = sum(p.numel() for p in base.model.parameters())
    found = Probed(refusal, base.architecture, parameters, _context(base), facts)
    del base
    gc.collect()
    return found


def machine_precision() -> Precision:
    """What this machine computes in when nothing is set."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    return resolve_precision("auto", flags, cuda=torch.cuda.is_available())


def lora_targets(model: nn.Module) -> tuple[str, ...]:
    """The names of linear layers that LoRA is put on: those of attention and of dense blocks."""
    names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return tuple(name for name in _TARGETS if name in names)


def _probe_precision(folder: Path) -> Precision:
    """fp32 where the model fits into half of the free memory, else bf16."""
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return "fp32" if 2 * stored < psutil.virtual_memory().available / 2 else "bf16"


def _refuse_by_structure(base: LoadedBase, targets: Sequence[str]) -> str | None:
    config = base.config
    kinds = {str(kind) for kind in getattr(config, "layer_types", None) or ()}
    odd = sorted(kind for kind in kinds if any(word in kind for word in _RECURRENT))
    if odd:
        return f"it has layers of the kind {odd[0]}, which do not pass the attention interface"
    if getattr(config, "attention_chunk_size", None):
        return "its attention goes by chunks, which packed training would compute wrongly"
    if not targets:
        return "it has no linear layers that LoRA could be put on"
    return None


def _context(base: LoadedBase) -> int:
    """The context window; where longer texts would change the positions of shorter ones (RoPE of
    the kinds dynamic and longrope), the original one."""
    rope = getattr(base.config, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in {"dynamic", "longrope"}:
        original = rope.get("original_max_position_embeddings") or getattr(
            base.config, "original_max_position_embeddings", None
        )
        return int(original or base.context_tokens)
    return base.context_tokens


def _narrow_windows(model: nn.Module) -> dict[nn.Module, int]:
    """Narrows sliding windows; returns what they were."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        window = getattr(module, "sliding_window", None)
        if isinstance(window, int) and window > _WINDOW:
            found[module] = window
            module.sliding_window = _WINDOW  # type: ignore[assignment]
    return found


def _compare(base: LoadedBase, targets: Sequence[str]) -> dict[str, float]:
    """The largest differences between packed and separate eager passes."""
    model = base.model
    names = put_lora_layers(model, targets, _Nothing())
    layers = {name: model.get_submodule(name) for name in names}
    spec = LoraSpec(rank=4, alpha=8.0, target_modules=tuple(targets))
    linears = {name: layer.base for name, layer in layers.items()}
    adapter = TrainedAdapter(linears, spec, DTYPES[base.precision], seed=0)
    generator = torch.Generator().manual_seed(1)
    for name in names:
        adapter.master_views(name)[1].normal_(0, 0.02, generator=generator)
    adapter.refresh()
    for layer in layers.values():
        layer.set_adapters(adapter)
    chats = [torch.randint(0, base.vocab_size, (n,), generator=generator) for n in _LENGTHS]
    weights = [torch.randn(n, generator=generator) for n in _LENGTHS]
    window = getattr(base.config, "sliding_window", None)
    narrowed = _narrow_windows(model)
    if isinstance(window, int) and narrowed:
        base.config.sliding_window = _WINDOW
    try:
        ours, our_grads = _packed_pass(model, adapter, chats, weights)
        decoded = _decoded_pass(model, chats)
        model.set_attn_implementation("eager")
        eager, eager_grads = _eager_pass(model, adapter, chats, weights)
    finally:
        model.set_attn_implementation("afina")
        for module, width in narrowed.items():
            module.sliding_window = width  # type: ignore[assignment]
        if isinstance(window, int) and narrowed:
            base.config.sliding_window = window
    scale = max(float(one.abs().max()) for one in eager)
    tails = torch.stack([one[-_DECODED - 1 :] for one in eager])
    return {
        "logits_difference": _largest(ours, eager) / scale,
        "gradient_difference": float((our_grads - eager_grads).norm() / eager_grads.norm()),
        "decoding_difference": float((decoded - tails).abs().max()) / scale,
    }


def _largest(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def _refuse_by_numbers(precision: Precision, facts: Mapping[str, Any]) -> str | None:
    logits, gradient = _LIMITS[precision]
    for name, limit in (
        ("logits_difference", logits),
        ("decoding_difference", logits),
        ("gradient_difference", gradient),
    ):
        if not facts[name] <= limit:
            what = name.removesuffix("_difference")
            return (
                f"packed passes and transformers' own differ in {what} by {facts[name]:.1e} "
                f"(allowed: {limit:.0e})"
            )
    return None


class _Nothing:
    """Adapters that add nothing."""

    def delta(self, name: str, x: torch.Tensor) -> None:  # noqa: ARG002
        return None


def _packed_pass(
    model: nn.Module,
    adapter: TrainedAdapter,
    chats: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    ids, positions, spans = _flat(chats, _CAPACITY)
    context = PackedContext(_CAPACITY, group_spans(spans, _CAPACITY), Masks())
    adapter.grads.zero_()
    logits = _call(model, ids, positions, context)[0].float()
    parts = [logits[start : start + count] for start, count in spans]
    _pull(parts, weights)
    return [part.detach() for part in parts], adapter.grads.clone()


def _eager_pass(
    model: nn.Module,
    adapter: TrainedAdapter,
    chats: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    adapter.grads.zero_()
    found = []
    for chat, weight in zip(chats, weights, strict=True):
        logits = model(input_ids=chat[None], use_cache=False).logits[0].float()
        _pull([logits], [weight])
        found.append(logits.detach())
    return found, adapter.grads.clone()


def _pull(parts: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> None:
    """A scalar of all logits, and its gradient."""
    total = torch.stack(
        [(torch.logsumexp(p, -1) * w).sum() for p, w in zip(parts, weights, strict=True)]
    )
    total.sum().backward()  # type: ignore[no-untyped-call]


def _decoded_pass(model: nn.Module, chats: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits `[chats, steps + 1, V]` after a packed prefill and after each token that follows."""
    heads = [chat[:-_DECODED] for chat in chats]
    ids, positions, spans = _flat(heads, _CAPACITY)
    cache = SlotCache(len(chats), max(_LENGTHS))
    placed = [(row, start, count) for row, (start, count) in enumerate(spans)]
    groups = group_spans(spans, _CAPACITY)
    with torch.inference_mode():
        context = PrefillContext(_CAPACITY, groups, Masks(), cache, placed)
        logits = _call(model, ids, positions, context)[0].float()
        steps = [torch.stack([logits[start + count - 1] for start, count in spans])]
        for number in range(_DECODED):
            places = torch.tensor([len(head) for head in heads]) + number
            tokens = torch.stack([c[p] for c, p in zip(chats, places.tolist(), strict=True)])
            advance = AdvanceContext(cache, places)
            steps.append(_call(model, tokens[None], places[None], advance)[0].float())
    return torch.stack(steps, 1)


def _flat(
    chats: Sequence[torch.Tensor], capacity: int
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    ids = torch.zeros(1, capacity, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    spans, start = [], 0
    for chat in chats:
        ids[0, start : start + len(chat)] = chat
        positions[0, start : start + len(chat)] = torch.arange(len(chat))
        spans.append((start, len(chat)))
        start += len(chat)
    return ids, positions, spans


def _call(
    model: nn.Module,
    ids: torch.Tensor,
    positions: torch.Tensor,
    context: object,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    some = {} if kept is None else {"logits_to_keep": kept}
    out = model(input_ids=ids, position_ids=positions, use_cache=False, afina_ctx=context, **some)
    logits: torch.Tensor = out.logits
    return logits


def _measured(
    base: LoadedBase, folder: Path, targets: Sequence[str]
) -> tuple[LoadedBase, dict[str, Any]]:
    """How fast the base trains, and in which precision: in bf16 also where the processor does not
    multiply it, if kernels compute all of its layers."""
    precision = machine_precision()
    if precision == "fp32" and library() is not None:
        rate, busy, own = _training_rate(base, "bf16")
        if own:
            return base, _rate_facts(rate, busy) | {"precision": "bf16", "bf16_by": BY_KERNELS}
        base = load_base(folder, _probe_precision(folder))
        put_lora_layers(base.model, targets, _Nothing())
    rate, busy, _ = _training_rate(base, precision)
    return base, _rate_facts(rate, busy)


def _rate_facts(rate: float, busy: bool) -> dict[str, Any]:
    return {"train_tokens_per_s": round(rate, 1)} | ({"train_rate_busy": True} if busy else {})


def _training_rate(base: LoadedBase, precision: Precision) -> tuple[float, bool, bool]:
    """Tokens a second of forward and backward in a precision, LoRA as by default; whether other
    programs took so much of the machine that processor time was counted instead; and whether
    kernels compute all layers."""
    model = base.model.to(DTYPES[precision])
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "set_adapters")}
    linears = {name: layer.base for name, layer in layers.items()}
    adapter = TrainedAdapter(linears, LoraSpec(), DTYPES[precision], seed=0)
    for layer in layers.values():
        layer.set_adapters(adapter)
    fuse_frozen(model)
    own = fuse_blocks(model, adapter).own == base.layers
    if precision == "bf16" and not own and machine_precision() == "fp32":
        return 0.0, False, False  # torch would take minutes
    fuse_head(model)
    chats = [torch.arange(count) % base.vocab_size for count in _RATE_CHATS]
    ids, positions, spans = _flat(chats, _RATE_CAPACITY)
    masks = Masks()
    kept = torch.arange(0, sum(_RATE_CHATS), 2)  # about as many positions as training has loss at
    seconds, worked = [], []
    for _ in range(3):
        began, work_began = time.perf_counter(), time.process_time()
        context = PackedContext(_RATE_CAPACITY, group_spans(spans, _RATE_CAPACITY), masks)
        logits = _call(model, ids, positions, context, kept)
        logits.backward(torch.zeros_like(logits))  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
        worked.append((time.process_time() - work_began) / torch.get_num_threads())
    fastest, alone = min(seconds), min(worked)
    busy = fastest > _BUSY * alone
    return sum(_RATE_CHATS) / (alone if busy else fastest), busy, own
