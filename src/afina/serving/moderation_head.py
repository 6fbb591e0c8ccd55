"""Moderation scores from the encoder: its last layers tuned for them, and a logistic layer.

The file beside `afina.data.moderation` holds what tuning changed in those layers (4 bits a weight,
a scale for 64 of them), the logistic layer, which also sees the word lists' signals and what a
layer further down gave (`beside`), and the calibration. `benchmarks/train_moderation.py` and
`benchmarks/fit_moderation.py` make it from the sentences that stand there too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final, Protocol

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from afina.data.moderation.categories import CATEGORIES
from afina.data.moderation.words import signals
from afina.model.encoder import PREFIX, Encoder, Layer, prepared

FILE: Final = "head.safetensors"
FACTS: Final = "head.json"
PACKAGE: Final = "afina.data.moderation"
_GROUP: Final = 64
_CLIPPED: Final = 0.75
"""Of the largest change in a group, what the largest code stands for (least error for changes that
spread normally)."""


class Layered(Protocol):
    """What has layers: the encoder."""

    depth: int

    def layer(self, number: int) -> Layer:
        """The plain tensors of a layer."""
        ...


class ModerationHead:
    """The tuned layers and the logistic layer, for one encoder."""

    prefix: Final = PREFIX

    def __init__(self, tensors: Mapping[str, torch.Tensor], version: str, encoder: Encoder) -> None:
        assert len(CATEGORIES) == len(tensors["out.b"])
        self.version = version
        self.top = [prepared(layer) for layer in with_delta(encoder, tensors)]
        self._weight, self._bias = tensors["out.w"].float(), tensors["out.b"].float()
        self._slope, self._shift = tensors["calibration"].float()
        self._beside: list[int] = tensors["beside"].tolist() if "beside" in tensors else []

    @classmethod
    def load(cls, encoder: Encoder) -> ModerationHead:
        """The head that comes with afina."""
        folder = resources.files(PACKAGE)
        facts = json.loads((folder / FACTS).read_text())
        tensors = load_safetensors((folder / FILE).read_bytes())
        return cls(tensors, str(facts["version"]), encoder)

    @torch.inference_mode()
    def scores(
        self, encoder: Encoder, ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> list[list[float]]:
        """Calibrated scores `[texts][categories]` from 0 to 1. `ids` are those of the texts with
        the prefix before them."""
        found: list[list[float]] = torch.sigmoid(self.logits(encoder, ids, texts)).tolist()
        return found

    def features(
        self, encoder: Encoder, ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> torch.Tensor:
        """What the logistic layer sees of each text: the last layer's mean, the word lists'
        signals, and the means of the layers `beside` [texts, width + lists + width * beside]."""
        pooled = encoder.pool_ids(ids, self.top, self._beside).pooled
        words = torch.tensor([signals(text) for text in texts])
        return torch.cat([pooled[:, : encoder.width], words, pooled[:, encoder.width :]], 1)

    def logits(
        self, encoder: Encoder, ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> torch.Tensor:
        """The same before the sigmoid."""
        raw = self.features(encoder, ids, texts) @ self._weight.T + self._bias
        calibrated: torch.Tensor = raw * self._slope + self._shift
        return calibrated


def pack_head(
    deltas: Mapping[str, torch.Tensor],
    out: tuple[torch.Tensor, torch.Tensor],
    calibration: torch.Tensor,
) -> bytes:
    """The head's file. `out` is weight [13, width + lists + width * beside] and bias,
    `calibration` [2, 13]."""
    tensors = {**deltas, "out.w": out[0], "out.b": out[1], "calibration": calibration}
    packed: bytes = save_safetensors({n: t.detach().contiguous() for n, t in tensors.items()})
    return packed


def packed_delta(encoder: Layered, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    """What sets `layers` apart from as many of the encoder's last ones: matrices as 4-bit codes
    [rows, columns / 2] and scales [rows, columns / 64], the rest as it is."""
    made: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(layers):
        base = encoder.layer(encoder.depth - len(layers) + number)
        for name, tensor in layer.items():
            key = f"l{number}.{name}"
            if tensor.ndim != 2:
                made[key] = tensor.float()
                continue
            change = (tensor.float() - base[name].float()).view(len(tensor), -1, _GROUP)
            scale = (change.abs().amax(2) * (_CLIPPED / 7)).clamp_min(1e-7).half()
            codes = (change / scale.float()[..., None]).round().clamp(-8, 7).to(torch.int8) + 8
            flat = codes.flatten(1).to(torch.uint8)
            made[f"{key}.codes"] = flat[:, 0::2] | (flat[:, 1::2] << 4)
            made[f"{key}.scale"] = scale
    return made


def with_delta(encoder: Layered, tensors: Mapping[str, torch.Tensor]) -> list[Layer]:
    """The tuned layers of a head's file, in the encoder's type."""
    count = len({name.split(".")[0] for name in tensors if name.startswith("l")})
    made: list[Layer] = []
    for number in range(count):
        layer: Layer = {}
        for name, base in encoder.layer(encoder.depth - count + number).items():
            key = f"l{number}.{name}"
            if base.ndim != 2:
                layer[name] = tensors[key].to(base.dtype)
                continue
            codes = tensors[f"{key}.codes"]
            both = torch.stack([codes & 15, codes >> 4], -1).flatten(1).float() - 8.0
            scale = tensors[f"{key}.scale"].float().repeat_interleave(_GROUP, 1)
            layer[name] = (base.float() + both * scale).to(base.dtype)
        made.append(layer)
    return made
