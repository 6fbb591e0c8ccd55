"""The encoder's network: a BERT of 12 layers that makes vectors of texts (Wang et al. 2024,
multilingual E5, arXiv:2402.05672).

Texts are sorted by length and computed in batches whose number of tokens is one of a few, because
each new shape costs the processor's kernels anew. Longer texts than the network reads at once are
read in windows, whose vectors are averaged by their tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from safetensors import safe_open
from tokenizers import Tokenizer

from afina.domain.encoders import MOST_TOKENS, NORMALIZATION, TOKENIZER, WEIGHTS
from afina.model.laid_out import laid_out, product

_BEGIN: Final = 0
_END: Final = 2
_PAD: Final = 1
_CAPACITIES: Final = (32, 64, 128, 256, 512, 1024, 2048)
_SPACE: Final = "\u2581"
"""How the tokenizer writes a space."""
Layer = dict[str, torch.Tensor]
"""One layer's tensors: qkv, ao, fi, fo (`.w`, `.b`) and the norms aln, oln."""
PREFIX: Final = "query: "
"""What the network was trained to see before a text that is compared with its like."""


@dataclass(frozen=True)
class Vectors:
    """`pooled` [texts, width] is the mean over a text's tokens, not normalised; `tokens` counts
    each text's, marks and prefix included."""

    pooled: torch.Tensor
    tokens: list[int]


class TextTokenizer:
    """Texts to ids, as the network's own tokenizer splits them."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        table = json.loads((folder / NORMALIZATION).read_text())
        self._table = {int(point): text for point, text in table.items()}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Content ids of each text, without marks; characters that stand for nothing are gone."""
        # A lone surrogate is no character, and the tokenizer would refuse the whole batch.
        plain = [text.encode("utf-8", "replace").decode().translate(self._table) for text in texts]
        found = self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def own(self, contents: Sequence[Sequence[int]]) -> list[bool]:
        """Of each list of ids, whether it is what this tokenizer makes of a text: another one's ids
        stand for other words here."""
        pieces = ["".join(self._tokenizer.id_to_token(i) or "" for i in ids) for ids in contents]
        texts = [text.replace(_SPACE, " ").removeprefix(" ") for text in pieces]
        again = self.ids(texts)
        return [list(ids) == found for ids, found in zip(contents, again, strict=True)]


def windows_of(ids: Sequence[int]) -> list[Sequence[int]]:
    """A text's content ids as the network reads them; one empty window of an empty text."""
    room = MOST_TOKENS - 2
    return [ids[start : start + room] for start in range(0, max(1, len(ids)), room)]


class Encoder:
    """The network in memory. One thread at a time may use it."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = TextTokenizer(folder)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.width: int = facts["width"]
        self.heads: int = facts["heads"]
        self.epsilon: float = facts["epsilon"]
        self.depth: int = facts["layers"]
        self.dtype = dtype
        self._codes, self._scales = tensors.pop("emb.codes"), tensors.pop("emb.scales")
        self._position = tensors.pop("emb.pos").view(-1, self.width)
        self._kind = tensors.pop("emb.type")[: self.width]
        self.vocabulary = len(self._codes)
        self._norms = (tensors.pop("emb.ln.w"), tensors.pop("emb.ln.b"))
        self._layers: list[Layer] = [
            prepared(_layer(tensors, number, dtype)) for number in range(self.depth)
        ]

    def pool(self, texts: Sequence[str], prefix: str = PREFIX) -> Vectors:
        """The mean vector of each text."""
        return self.pool_ids(self.tokenizer.ids([prefix + text for text in texts]))

    def unit_ids(self, contents: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors of length 1 `[texts, width]`, float32, of texts given as their content's ids."""
        return F.normalize(self.pool_ids(contents).pooled, dim=-1)

    @torch.inference_mode()
    def pool_ids(
        self,
        contents: Sequence[Sequence[int]],
        top: Sequence[Layer] = (),
        beside: Sequence[int] = (),
    ) -> Vectors:
        """The mean vector of each text, given as its content's ids. `top` stands in for as many
        of the network's last layers. What the layers `beside` (from 0, rising) gave is put after
        it: `pooled` is then [texts, width * (1 + len(beside))]."""
        layers = [*self._layers[: self.depth - len(top)], *top]
        windows: list[list[int]] = []
        owners: list[int] = []
        for number, ids in enumerate(contents):
            for window in windows_of(ids):
                windows.append([_BEGIN, *window, _END])
                owners.append(number)
        means = torch.zeros(len(windows), self.width * (1 + len(beside)))
        for batch in _batches([len(window) for window in windows]):
            means[batch] = self._means([windows[i] for i in batch], layers, beside)
        lengths = torch.tensor([max(1, len(window) - 2) for window in windows], dtype=torch.float32)
        place = torch.tensor(owners, dtype=torch.int64)
        pooled = torch.zeros(len(contents), means.shape[1])
        total = torch.zeros(len(contents))
        pooled.index_add_(0, place, means * lengths[:, None])
        total.index_add_(0, place, lengths)
        return Vectors(pooled / total[:, None], [len(ids) + 2 for ids in contents])

    def layer(self, number: int) -> Layer:
        """The plain tensors of a layer."""
        return {n: t.to_dense() if t.is_mkldnn else t for n, t in self._layers[number].items()}

    def prepared_layer(self, number: int) -> Layer:
        """The tensors of a layer as `through` is quickest with them."""
        return self._layers[number]

    def _means(
        self, windows: list[list[int]], layers: Sequence[Layer], beside: Sequence[int]
    ) -> torch.Tensor:
        lengths = torch.tensor([len(window) for window in windows])
        longest = int(lengths.max())
        rows = len(windows)
        capacity = next((c for c in _CAPACITIES if c >= rows * longest), rows * longest)
        ids = torch.full((rows, longest), _PAD)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
        real = torch.arange(longest)[None, :] < lengths[:, None]
        x = F.pad(self.embedded(ids).view(-1, self.width), (0, 0, 0, capacity - rows * longest))
        mask = torch.zeros(rows, 1, 1, longest, dtype=self.dtype)
        mask.masked_fill_(~real[:, None, None, :], torch.finfo(self.dtype).min)
        found = []
        for number, layer in enumerate(layers):
            x = self.through(layer, x, mask)
            if number in beside or number == len(layers) - 1:
                hidden = x[: rows * longest].view(rows, longest, self.width) * real[:, :, None]
                found.append(hidden.sum(1) / lengths[:, None])
        return torch.cat([found[-1], *found[:-1]], 1)

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """The first layer's input `[..., width]` of ids, with their positions."""
        codes = self._codes[ids].view(*ids.shape, self.width // 32, 16)
        both = torch.cat([codes & 15, codes >> 4], -1).float() - 8.0
        words = (both * self._scales[ids].float()[..., None]).flatten(-2)
        x = words + self._position[: ids.shape[1]] + self._kind
        return F.layer_norm(x, (self.width,), *self._norms, self.epsilon)

    def through(self, layer: Layer, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [capacity, width] through one layer; mask [rows, 1, 1, longest]."""
        rows, longest = mask.shape[0], mask.shape[-1]
        low = x.to(self.dtype)
        joined = _product(low, layer, "qkv")
        used = joined[: rows * longest].view(rows, longest, 3, self.heads, -1)
        q, k, v = used.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        flat = seen.transpose(1, 2).reshape(rows * longest, self.width)
        flat = F.pad(flat, (0, 0, 0, x.shape[0] - rows * longest))
        x = x + _product(flat, layer, "ao")
        x = F.layer_norm(x.float(), (self.width,), layer["aln.w"], layer["aln.b"], self.epsilon)
        inner = _product(x.to(self.dtype), layer, "fi", "gelu")
        x = x + _product(inner, layer, "fo")
        return F.layer_norm(x.float(), (self.width,), layer["oln.w"], layer["oln.b"], self.epsilon)


def prepared(layer: Layer) -> Layer:
    """The layer with its bf16 matrices laid out for the processor once, where it can do that."""
    packed = {name: laid_out(tensor) for name, tensor in layer.items() if tensor.ndim == 2}
    return layer | {name: tensor for name, tensor in packed.items() if tensor is not None}


def _product(
    x: torch.Tensor, layer: Layer, name: str, after: Literal["none", "gelu"] = "none"
) -> torch.Tensor:
    weight, bias = layer[f"{name}.w"], layer[f"{name}.b"]
    if weight.is_mkldnn:
        return product(x, weight, bias, after)
    plain = F.linear(x, weight, bias)
    return F.gelu(plain) if after == "gelu" else plain


def _layer(tensors: dict[str, torch.Tensor], number: int, dtype: torch.dtype) -> Layer:
    found = {
        name.partition(".")[2]: tensor
        for name, tensor in tensors.items()
        if name.startswith(f"l{number}.")
    }
    made = {name: found[name] for name in ("aln.w", "aln.b", "oln.w", "oln.b")}
    for kind in ("w", "b"):
        made[f"qkv.{kind}"] = torch.cat([found[f"{part}.{kind}"] for part in "qkv"]).to(dtype)
        for part in ("ao", "fi", "fo"):
            made[f"{part}.{kind}"] = found[f"{part}.{kind}"].to(dtype)
    return made


def _batches(lengths: list[int]) -> list[list[int]]:
    """Indices grouped by like length, so that few positions are padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    made: list[list[int]] = []
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > _CAPACITIES[-2]:
            made.append(batch)
            batch = []
        batch.append(index)
    return [*made, batch] if batch else made
