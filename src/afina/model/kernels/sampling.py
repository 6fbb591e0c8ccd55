"""Draws and log-probabilities of rows of logits (`source/sampling.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from afina.model.kernels.calls import call, structure
from afina.model.kernels.library import library

_BLOCK: Final = 256
_TABLE: Final = "count apart width padded wide crowded"
_Draws: Final = structure("_Draws", "rows places", _TABLE, "", "keys heats limits found")
_Listing: Final = structure("_Listing", "rows places", _TABLE, "", "tokens ids chosen told most")


@dataclass(frozen=True)
class Draw:
    """What one token is drawn with."""

    key: int
    """64 bits that its noise comes from."""
    temperature: float
    top_p: float


@dataclass(frozen=True)
class Listed:
    """Log-probabilities of one row: the asked token's, and the likeliest tokens with theirs."""

    chosen: float
    ids: list[int]
    logprobs: list[float]


def takes(rows_RV: torch.Tensor) -> bool:
    """Whether the kernels are there and take such rows: bf16 or float32, whose numbers lie side
    by side."""
    fits = rows_RV.dtype in (torch.bfloat16, torch.float32) and rows_RV.is_cpu
    fits = fits and rows_RV.dim() == 2 and rows_RV.shape[1] > 0 and rows_RV.stride(1) == 1
    return fits and library() is not None


def draw(rows_RV: torch.Tensor, places: Sequence[int], ways: Sequence[Draw]) -> list[int]:
    """One token for each of `places` among the rows. Raises ValueError for a place that is none,
    and MemoryError."""
    signed = [way.key - (1 << 64) if way.key >> 63 else way.key for way in ways]
    keys = torch.tensor(signed, dtype=torch.int64)
    heats = torch.tensor([way.temperature for way in ways], dtype=torch.float32)
    limits = torch.tensor([way.top_p for way in ways], dtype=torch.float32)
    found, at = torch.empty(len(ways), dtype=torch.int64), _places(rows_RV, places)
    call("afina_draw", _Draws(
        **_table(rows_RV, at), keys=keys.data_ptr(), heats=heats.data_ptr(),
        limits=limits.data_ptr(), found=found.data_ptr(),
    ))  # fmt: skip
    tokens: list[int] = found.tolist()
    return tokens


def listed(
    rows_RV: torch.Tensor, places: Sequence[int], tokens: Sequence[int], most: int
) -> list[Listed]:
    """Log-probabilities in each of `places` among the rows: its token's, and the `most` likeliest,
    of equals the first. Raises ValueError for a place, token or number that is none, and
    MemoryError."""
    count, width = len(places), rows_RV.shape[1]
    if not 0 <= most <= width or (count and not 0 <= min(tokens) <= max(tokens) < width):
        raise ValueError(f"{most} of {width} tokens, or a token that is none of them")
    asked, at = torch.tensor(tokens, dtype=torch.int64), _places(rows_RV, places)
    ids = torch.empty(count, most, dtype=torch.int64)
    chosen, told = torch.empty(count), torch.empty(count, most)
    call("afina_candidates", _Listing(
        **_table(rows_RV, at), tokens=asked.data_ptr(), ids=ids.data_ptr(),
        chosen=chosen.data_ptr(), told=told.data_ptr(), most=most,
    ))  # fmt: skip
    return list(map(Listed, chosen.tolist(), ids.tolist(), told.tolist()))


def _places(rows_RV: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    if len(places) and not 0 <= min(places) <= max(places) < len(rows_RV):
        raise ValueError(f"a place is none of {len(rows_RV)} rows")
    return torch.tensor(places, dtype=torch.int64)


def _table(rows_RV: torch.Tensor, places: torch.Tensor) -> dict[str, Any]:
    """Arguments that say where the rows are; `places` must live as long as they are used."""
    width = rows_RV.shape[1]
    return {
        "rows": rows_RV.data_ptr(),
        "places": places.data_ptr(),
        "count": len(places),
        "apart": rows_RV.stride(0),
        "width": width,
        "padded": -(-width // _BLOCK) * _BLOCK,
        "wide": int(rows_RV.dtype == torch.float32),
        "crowded": 0,
    }
