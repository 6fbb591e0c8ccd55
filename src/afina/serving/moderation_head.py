"""Moderation scores from the encoder: its last layers tuned for them, and a logistic layer.

The file beside `afina.data.moderation` holds those layers in 8 bits a weight (a scale a row), the
logistic layer, which also sees the word lists' signals, and the calibration, all trained by
`benchmarks/train_moderation.py` on the sentences that stand there too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Final

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from afina.data.moderation.categories import CATEGORIES
from afina.data.moderation.words import signals
from afina.model.encoder import PREFIX, Encoder, Layer

FILE: Final = "head.safetensors"
FACTS: Final = "head.json"
PACKAGE: Final = "afina.data.moderation"


class ModerationHead:
    """The tuned layers and the logistic layer, for one encoder."""

    prefix: Final = PREFIX

    def __init__(self, tensors: dict[str, torch.Tensor], version: str, dtype: torch.dtype) -> None:
        self.version = version
        count = len({name.split(".")[0] for name in tensors if name.startswith("l")})
        """The tuned layers and the logistic layer of a head's file."""
        self.top = [_layer(tensors, number, dtype) for number in range(count)]
        self._weight, self._bias = tensors["out.w"].float(), tensors["out.b"].float()
        self._slope, self._shift = tensors["calibration"].float()

    @classmethod
    def load(cls, encoder: Encoder) -> ModerationHead:
        """The head that comes with afina."""
        folder = resources.files(PACKAGE)
        facts = json.loads((folder / FACTS).read_text())
        tensors = load_safetensors((folder / FILE).read_bytes())
        return cls(tensors, str(facts["version"]), encoder.dtype)

    @torch.inference_mode()
    def scores(
        self, encoder: Encoder, ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> list[list[float]]:
        """Calibrated scores `[texts][categories]` from 0 to 1. `ids` are those of the texts with
        the prefix before them."""
        found: list[list[float]] = torch.sigmoid(self.logits(encoder, ids, texts)).tolist()
        return found

    def logits(
        self, encoder: Encoder, ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> torch.Tensor:
        """The same before the sigmoid."""
        pooled = encoder.pool_ids(ids, self.top).pooled
        seen = torch.cat([pooled, torch.tensor([signals(text) for text in texts])], 1)
        raw = seen @ self._weight.T + self._bias
        calibrated: torch.Tensor = raw * self._slope + self._shift
        return calibrated


def pack_head(
    layers: Sequence[Layer], out: tuple[torch.Tensor, torch.Tensor], calibration: torch.Tensor
) -> bytes:
    """The head's file. `out` is weight [13, width + lists] and bias, `calibration` [2, 13]."""
    tensors = {"out.w": out[0], "out.b": out[1], "calibration": calibration}
    for number, layer in enumerate(layers):
        for name, tensor in layer.items():
            key = f"l{number}.{name}"
            if tensor.ndim == 2:
                scale = tensor.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
                tensors[f"{key}.codes"] = (tensor / scale).round().to(torch.int8)
                tensors[f"{key}.scale"] = scale[:, 0].to(torch.float32)
            else:
                tensors[key] = tensor.to(torch.float32)
    packed: bytes = save_safetensors({n: t.detach().contiguous() for n, t in tensors.items()})
    return packed


def _layer(tensors: dict[str, torch.Tensor], number: int, dtype: torch.dtype) -> Layer:
    made: Layer = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if head != f"l{number}":
            continue
        if rest.endswith(".codes"):
            rest = rest.removesuffix(".codes")
            scale = tensors[f"l{number}.{rest}.scale"]
            made[rest] = (tensor.float() * scale[:, None]).to(dtype)
        elif not rest.endswith(".scale"):
            is_norm = rest.startswith(("aln", "oln"))
            made[rest] = tensor.float() if is_norm else tensor.to(dtype)
    assert len(CATEGORIES) == len(tensors["out.b"])
    return made
