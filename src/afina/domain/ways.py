"""What a run tunes and by which means: all that its time and memory depend on beside base and rows.

The work of a token is told in that of plain LoRA on all linear layers: two products forward and two
back through frozen weights. A weight of one's own asks for a third one back; blocks below the tuned
ones go forward alone, once for all epochs; operations of torch take longer than a layer by kernels
of our own. What was measured stands in docs/data.md; `benchmarks/estimates.py` prints the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from afina.domain.manifests import TuneKind
from afina.domain.methods import BaseBits
from afina.domain.runs import LoraSpec, RunSpec, TuneSpec

_USUAL: Final = LoraSpec()
_BY_TORCH: Final = 1.25
"""Of a token whose layers torch computes, an operation at a time."""
_MASKED: Final = 1.35
_DORA: Final = 1.4
_FULL: Final = 1.6
_FULL_STEP: Final = 1.5
_REMADE_STEP: Final = 1.5
"""Of a step over 4 bits: each weight is made anew twice."""
_BLOCKS: Final = 1.4
"""Of a token in tuned blocks alone, were they all of them."""
_BLOCKS_WITH_HEAD: Final = 1.9
_FORWARD: Final = 0.5
"""Of a token that goes forward alone."""
_REFERENCE: Final = 0.4
"""Of what preferences are measured against: once forward."""


@dataclass(frozen=True)
class Work:
    """What a run of some way takes, in that of plain LoRA on all linear layers."""

    token: float = 1.0
    """Of a token that goes through the layers."""
    once: float = 0.0
    """Of a token, once for all epochs."""
    step: float = 1.0
    """Of a step."""


@dataclass(frozen=True)
class Way:
    """The kind of tuning with its numbers, and the method."""

    kind: TuneKind = "lora"
    rank: int = _USUAL.rank
    targets: tuple[str, ...] = _USUAL.target_modules
    dropout: float = 0.0
    base_bits: BaseBits = 16
    layers: int = 0
    """Of kind `blocks`: how many from the top."""
    norm_and_head: bool = False
    pairs: bool = False
    """Whether rows are preferences (DPO)."""

    @classmethod
    def of(cls, tune: TuneSpec, lora: LoraSpec, method: str) -> Way:
        """From what a run's spec says. What its kind does not have stays as it is by default, so
        that equal runs have equal ways."""
        if tune.kind in ("lora", "dora"):
            return cls(
                tune.kind,
                lora.rank,
                tuple(sorted(lora.target_modules)),
                lora.dropout,
                tune.base_bits,
                pairs=method == "dpo",
            )
        layers = tune.layers if tune.kind == "blocks" else 0
        head = tune.kind == "blocks" and tune.norm_and_head
        return cls(tune.kind, layers=layers, norm_and_head=head, pairs=method == "dpo")

    @classmethod
    def of_run(cls, spec: RunSpec) -> Way:
        """The way of a run."""
        return cls.of(spec.tune, spec.lora, spec.method)

    @property
    def of_adapters(self) -> bool:
        """Whether the base stays frozen and adapters are tuned."""
        return self.kind in ("lora", "dora")

    @property
    def all_targets(self) -> bool:
        """Whether every linear layer of a block has an adapter."""
        return set(_USUAL.target_modules) <= set(self.targets)

    @property
    def fused(self) -> bool:
        """Whether kernels of our own compute whole layers of such a run, where they can."""
        if self.kind == "lora":
            return self.base_bits == 16 and self.all_targets and not self.dropout
        return self.kind in ("full", "blocks")

    @property
    def shares(self) -> bool:
        """Whether a beginning that rows share is computed once: dropout draws a mask a token."""
        return not (self.of_adapters and self.dropout)

    def work(self, layers: int) -> Work:
        """Of a network with so many layers, as processor time was measured with the starter."""
        once = _REFERENCE if self.pairs else 0.0
        if self.kind == "full":
            return Work(_FULL, once, _FULL_STEP)
        if self.kind == "blocks":
            share = min(self.layers, layers) / max(1, layers)
            token = share * (_BLOCKS_WITH_HEAD if self.norm_and_head else _BLOCKS)
            return Work(token, once + _FORWARD * (1 - share))
        by_torch = _DORA if self.kind == "dora" else _BY_TORCH
        token = 1.0 if self.fused else max(by_torch, _MASKED if self.dropout else 0.0)
        return Work(token, once, _REMADE_STEP if self.base_bits == 4 else 1.0)


PLAIN: Final = Way()
"""LoRA on all linear layers."""
