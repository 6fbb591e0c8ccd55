"""safetensors files written piece by piece, the same bytes as the library writes.

What a file holds is known before its numbers are, so the header can be written first and each
tensor may be a view, or come later: no second copy of a run's state is made in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import torch

Pieces = Iterable[bytes | memoryview]
"""The content of a file, in order."""

_NAMES: Final = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ALIGNMENT: Final = 8


def header(
    tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """What stands before the numbers of tensors of one type, which follow in the order of names."""
    listed: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    start = 0
    for name in sorted(tensors):
        dtype, shape = tensors[name]
        end = start + dtype.itemsize * torch.Size(shape).numel()
        offsets = [start, end]
        listed[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": offsets}
        start = end
    raw = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw


def numbers(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where it lies in one piece."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data


def flat_file(tensors: Mapping[str, torch.Tensor]) -> Pieces:
    """The file of some tensors of one type; they are read when the pieces are."""
    return _Whole(tensors)


class _Whole:
    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = dict(tensors)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield header({name: (t.dtype, t.shape) for name, t in self._tensors.items()})
        for name in sorted(self._tensors):
            yield numbers(self._tensors[name])
