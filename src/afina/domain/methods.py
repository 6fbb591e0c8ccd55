"""How a job tunes beyond what OpenAI's API can say: the extension object `afina` of a job.

    tuning           kind and its numbers
        lora         low-rank adapters beside the linear layers (the default)
        dora         the same with a trained length for each output row (Liu et al. 2024,
                     arXiv 2402.09353)
        full         every weight
        last_layers  the weights of the top blocks; norm and head too, if asked
    early_stopping   end when the validation loss has not fallen for some epochs
    best_checkpoint  the tuned model is the epoch with the lowest validation loss, not the last
    gate             what the release gate does with the model

A job stores it settled: every field of its kind has a value, those of other kinds are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from afina.domain.codec import encode, field_names

TuningKind = Literal["lora", "dora", "full", "last_layers"]
BaseBits = Literal[4, 16]
GatePolicy = Literal["off", "report", "hold"]
GateSuite = Literal["default", "full"]
KINDS: Final[tuple[str, ...]] = get_args(TuningKind)
DEFAULT_RANK: Final = 16
MAX_RANK: Final = 512
DEFAULT_BETA: Final = 0.1
"""What `auto` means for DPO's beta."""

_LOW_RANK: Final = frozenset(
    {"rank", "alpha", "dropout", "target_modules", "rank_stabilised", "base_bits"}
)
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "lora": _LOW_RANK,
    "dora": _LOW_RANK,
    "full": frozenset(),
    "last_layers": frozenset({"layers", "norm_and_head"}),
}
"""The fields that each kind of tuning has."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned. A field is None where it was not given, or is not of this kind."""

    kind: TuningKind = "lora"
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    target_modules: tuple[str, ...] | None = None
    rank_stabilised: bool | None = None
    base_bits: BaseBits | None = None
    """What the trainer holds a weight of the frozen base in: 4 is QLoRA."""
    layers: int | None = None
    """How many blocks from the top."""
    norm_and_head: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields that have a value, beside the kind."""
        every = {name: getattr(self, name) for name in field_names(type(self))}
        return {name: v for name, v in every.items() if v is not None and name != "kind"}

    @property
    def foreign(self) -> str | None:
        """The first field that was given and is not of this kind."""
        return next((name for name in self.given if name not in FIELDS[self.kind]), None)


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a run after `patience` epochs in a row in which the validation loss fell by less than
    `min_delta` below the lowest so far."""

    patience: int = 1
    min_delta: float = 0.0


@dataclass(frozen=True)
class GateWish:
    """What the release gate is asked for: `report` lets the name answer at once, `hold` lets it
    wait for the scores, `off` asks for none."""

    policy: GatePolicy = "report"
    suite: GateSuite = "default"


@dataclass(frozen=True)
class Extension:
    """The extension object of a job."""

    tuning: Tuning = field(default_factory=Tuning)
    early_stopping: EarlyStopping | None = None
    best_checkpoint: bool = False
    gate: GateWish = field(default_factory=GateWish)

    def shown(self) -> dict[str, Any]:
        """As a job's answer shows it: without the fields of other kinds of tuning."""
        return {
            "tuning": {"kind": self.tuning.kind, **encode(self.tuning.given)},
            "early_stopping": encode(self.early_stopping),
            "best_checkpoint": self.best_checkpoint,
            "gate": encode(self.gate),
        }
