"""LoRA adapters in PEFT's file format, so that weights can leave and come back.

`adapter_model.safetensors` holds `base_model.model.<layer>.lora_A.weight` and `lora_B.weight`;
`adapter_config.json` is read with a schema of our own: a setting that would change the result and
that we do not compute (patterns of ranks, modules saved whole, code of its own) is refused
by name. A DoRA adapter (`use_dora`) has a `lora_magnitude_vector` `[out]` for each layer besides,
and is read by `read_dora` alone. PEFT itself is never imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save

from afina.domain.runs import LoraSpec
from afina.errors import InvalidRequest
from afina.model.folder import vet_safetensors

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
_KEY: Final = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_MAGNITUDE: Final = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_magnitude_vector")
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MUST: Final[Mapping[str, tuple[object, ...]]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "use_dora": (False, True),
    "use_qalora": (False,),
}
_HARMLESS: Final = frozenset(
    {
        "base_model_name_or_path",
        "inference_mode",
        "init_lora_weights",
        "revision",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "use_rslora",
        "peft_version",
        "qalora_group_size",
        "ensure_weight_tying",
        "megatron_core",
    }
)
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_EMPTY: Final[tuple[object, ...]] = (None, False, [], {}, "")

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
Magnitudes = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter_config.json says, as far as it matters here."""

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    base: str | None = None
    rank_stabilised: bool = False
    dora: bool = False

    @property
    def scaling(self) -> float:
        """What the low-rank term is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    @staticmethod
    def of(spec: LoraSpec, base: str, *, dora: bool = False) -> AdapterConfig:
        """The configuration of a run's adapter. `base` is the base model's id."""
        return AdapterConfig(
            rank=spec.rank,
            alpha=spec.alpha,
            dropout=spec.dropout,
            target_modules=spec.target_modules,
            base=base,
            rank_stabilised=spec.rank_stabilised,
            dora=dora,
        )

    def to_bytes(self) -> bytes:
        """The text of adapter_config.json, the same bytes for the same configuration."""
        alpha = int(self.alpha) if float(self.alpha).is_integer() else self.alpha
        value = {
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": sorted(self.target_modules),
            "task_type": "CAUSAL_LM",
            "use_dora": self.dora,
            "use_rslora": self.rank_stabilised,
        }
        return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def parse_config(raw: bytes) -> AdapterConfig:
    """An adapter_config.json. Raises InvalidRequest naming what is not computed here."""
    try:
        value: Any = json.loads(raw)
    except ValueError as error:
        raise _refused(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise _refused("it is not an object")
    for name, setting in value.items():
        if name in _MUST:
            if setting not in _MUST[name]:
                raise _refused(f"{name} is {json.dumps(setting)[:60]}")
        elif name not in _HARMLESS and setting not in _EMPTY:
            raise _refused(f"{name} is not supported")
    rank, alpha, dropout = (value.get(k) for k in ("r", "lora_alpha", "lora_dropout"))
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 4096:
        raise _refused("r is not a whole number from 1 to 4096")
    if not isinstance(alpha, int | float) or not isinstance(dropout or 0.0, int | float):
        raise _refused("lora_alpha or lora_dropout is not a number")
    base = value.get("base_model_name_or_path")
    return AdapterConfig(
        rank=rank,
        alpha=float(alpha),
        dropout=float(dropout or 0.0),
        target_modules=_target_modules(value.get("target_modules")),
        base=base if isinstance(base, str) else None,
        rank_stabilised=bool(value.get("use_rslora")),
        dora=bool(value.get("use_dora")),
    )


def _target_modules(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _refused("target_modules is not a list of layer names")
    for name in value:
        if not isinstance(name, str) or not _MODULE.fullmatch(name):
            raise _refused("target_modules holds something that is not a layer's name")
    return tuple(sorted(value))


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The adapter's {CONFIG} cannot be used: {reason}.",
        remedy="afina reads plain LoRA adapters: rank, alpha, dropout and target modules.",
    )


def adapter_bytes(pairs: Pairs, magnitudes: Magnitudes | None = None) -> bytes:
    """The bytes of an adapter_model.safetensors with A and B of each layer, as they are; of DoRA
    with its lengths."""
    tensors = {}
    for layer, magnitude in (magnitudes or {}).items():
        tensors[f"base_model.model.{layer}.lora_magnitude_vector"] = magnitude.contiguous()
    for layer, (a, b) in pairs.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{layer}.lora_B.weight"] = b.contiguous()
    raw: bytes = save(dict(sorted(tensors.items())), metadata={"format": "pt"})
    return raw


def read_pairs(path: Path, config: AdapterConfig) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A `[rank, in]` and B `[out, rank]` by layer. Raises InvalidRequest if they do not fit the
    configuration: a wrong shape, a matrix without its partner, a tensor of another kind."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in _tensors(path):
        match = _KEY.fullmatch(key)
        if config.dora and _MAGNITUDE.fullmatch(key):
            continue
        if match is None:
            raise InvalidRequest(f"The adapter holds {key}, which is no LoRA matrix.")
        found.setdefault(match["layer"], {})[match["side"]] = tensor
    if not found:
        raise InvalidRequest("The adapter holds no LoRA matrix.")
    return {layer: _pair(layer, sides, config) for layer, sides in sorted(found.items())}


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """A safetensors file's tensors in memory of one piece, read once. Raises BaseRefused if header
    and size do not agree, and InvalidRequest for numbers of another kind."""
    header = vet_safetensors(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        raw = torch.empty(path.stat().st_size - start, dtype=torch.uint8).numpy()
        if file.readinto(raw.data) != len(raw):
            raise InvalidRequest("The adapter's file was cut off while it was read.")
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise InvalidRequest(f"The adapter's {key} is kept as {entry['dtype']}.")
        first, last = entry["data_offsets"]
        count = (last - first) // dtype.itemsize
        if not count:
            raise InvalidRequest(f"The adapter's {key} is empty.")
        flat = torch.frombuffer(raw, dtype=dtype, count=count, offset=first)
        yield key, flat.view(entry["shape"])


def _pair(
    layer: str, sides: Mapping[str, torch.Tensor], config: AdapterConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = sides.get("A"), sides.get("B")
    if a is None or b is None:
        raise InvalidRequest(f"The adapter has only one of the two matrices of {layer}.")
    if layer.rsplit(".", 1)[-1] not in config.target_modules:
        raise InvalidRequest(f"The adapter tunes {layer}, which is not in target_modules.")
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != config.rank or b.shape[1] != config.rank:
        raise InvalidRequest(f"The adapter's matrices of {layer} do not have rank {config.rank}.")
    return a, b


def read_adapter(
    config_path: Path, weights_path: Path
) -> tuple[AdapterConfig, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """A LoRA adapter from its two files, wherever they lie and whatever they are called."""
    config = parse_config(config_path.read_bytes())
    if config.dora:
        raise _refused("use_dora is true where a LoRA adapter is expected")
    return config, read_pairs(weights_path, config)


def read_dora(
    config_path: Path, weights_path: Path
) -> tuple[AdapterConfig, dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
    """A DoRA adapter from its two files: configuration, pairs, and the lengths `[out]` by layer."""
    config = parse_config(config_path.read_bytes())
    if not config.dora:
        raise _refused("use_dora is not true where a DoRA adapter is expected")
    pairs = read_pairs(weights_path, config)
    found = {}
    with safe_open(weights_path, framework="pt") as file:
        for layer, (_, b) in pairs.items():
            key = f"base_model.model.{layer}.lora_magnitude_vector"
            if key not in file.keys() or file.get_slice(key).get_shape() != [len(b)]:  # noqa: SIM118
                raise InvalidRequest(f"The adapter has no lengths that fit {layer}.")
            found[layer] = file.get_tensor(key)
    return config, pairs, found
