"""From a settled tuning to what a run does: its spec's parts, its precision, its way.

Jobs and estimates ask here, so what is estimated is what will be run.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from afina.domain.methods import Tuning
from afina.domain.models import BaseModel
from afina.domain.precision import precision_of_base, resolve_precision
from afina.domain.runs import LoraSpec, Precision, TuneSpec
from afina.domain.ways import Way
from afina.inside_settings import TrainingSettings
from afina.model.kernels.machine import can_have_kernels
from afina.service.tuning import TUNE_KINDS


def tune_for(tuning: Tuning) -> TuneSpec:
    """What a settled tuning changes in the network."""
    return TuneSpec(
        kind=TUNE_KINDS[tuning.kind],
        layers=tuning.layers or 0,
        norm_and_head=bool(tuning.norm_and_head),
        base_bits=tuning.base_bits or 16,
    )


def lora_for(tuning: Tuning, base: BaseModel) -> LoraSpec:
    """The adapters of a settled tuning. A job from before tunings were settled has LoRA on the
    layers that the base's probe found."""
    targets = tuning.target_modules or tuple(base.capabilities.get("lora_targets") or ())
    usual = LoraSpec()
    return LoraSpec(
        rank=tuning.rank or usual.rank,
        alpha=tuning.alpha or usual.alpha,
        dropout=tuning.dropout or 0.0,
        target_modules=targets or usual.target_modules,
        rank_stabilised=bool(tuning.rank_stabilised),
    )


def way_of(tuning: Tuning, base: BaseModel, method: str) -> Way:
    """The way of a run with a settled tuning."""
    return Way.of(tune_for(tuning), lora_for(tuning, base), method)


def precision_for(
    settings: TrainingSettings, base: BaseModel, *, by_kernels: bool = True
) -> Precision:
    """As set; else what the base's probe recorded, for runs that kernels compute or for others;
    else what this processor does natively."""
    native = resolve_precision("auto", _cpu_flags())
    taken = by_kernels and can_have_kernels()
    return precision_of_base(settings.precision, base, native, by_kernels=taken)


def kernels_take(tune: TuneSpec, tuning: Tuning) -> bool:
    """Whether kernels compute all products of such a run, on a base whose layers they compute."""
    if tune.kind == "blocks":
        return not tune.norm_and_head
    targets = tuning.target_modules
    plain = targets is None or set(LoraSpec().target_modules) <= set(targets)
    return tune.kind == "lora" and tune.base_bits == 16 and plain and not tuning.dropout


@lru_cache(maxsize=1)
def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")
