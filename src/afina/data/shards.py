"""Tokenised rows on disk: a folder of safetensors files and a manifest written last.

manifest.json            Manifest; where it stands, the folder is whole
shard-00000.safetensors  ids int32[n], learned uint8[n], offsets int64[rows+1], lines int64[rows]
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afina.domain.runs import DataSpec
from afina.text.renderer import Renderer

STAGE_VERSION = 1
SHARD_TOKENS = 4_000_000


@dataclass(frozen=True)
class ShardOptions:
    """What changes the shards beside the file and the renderer."""

    skip_lines: array[int] | None = None
    """Lines not to take: those that the check found bad."""
    max_row_tokens: int | None = None
    """Longer rows are refused by name (the check names them before)."""
    shard_tokens: int = SHARD_TOKENS


def build_shards(
    blob: Path,
    renderer: Renderer,
    target: Path,
    options: ShardOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataSpec:
    """Tokenises `blob` into `target/<hash>/` and says what is there. The hash is over the file's
    bytes, the renderer, the options and the stage's version, so a second call reads the manifest."""
    raise NotImplementedError


class Shards:
    """Reads a folder of shards. Rows are numbered from 0 through all files."""

    @classmethod
    def open(cls, path: Path) -> Shards:
        """Raises DataUnreadable where the manifest is missing or damaged."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        raise NotImplementedError

    @property
    def lines(self) -> NDArray[np.int64]:
        """The line of the source file that each row came from."""
        raise NotImplementedError

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Ids of a row and which of them carry loss."""
        raise NotImplementedError
