"""How a run's steps will be packed, found before it from a sample of its rows: how many tokens go
through the network, where rows share a beginning, and how many of them at once.

The plan is the trainer's own (`afina.training.planning`), over steps of rows drawn as an epoch
draws them: over all of them where the file is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.data.check import CheckReport
from afina.data.chunks import Chunk
from afina.data.kinds import RowKind
from afina.data.shards import Shards
from afina.data.tokenising import TokenPart, TokenSetup, begin_tokens
from afina.domain.bins import bin_capacities
from afina.domain.foresight import Packed
from afina.domain.runs import RunSpec
from afina.domain.ways import Way
from afina.errors import AfinaError
from afina.text.renderer import Renderer
from afina.training.packing import epoch_order, rows_of_step
from afina.training.planning import Rows, pair_bins, plan_bins

_WHOLE_BYTES: Final = 2 << 20
_PARTS: Final = 32
_STEPS: Final = 64
_PLANNED_TOKENS: Final = 200_000


class _Sample:
    """Rows of some parts of a file."""

    def __init__(self, parts: list[TokenPart], *, pairs: bool) -> None:
        self._rows: list[tuple[NDArray[np.int32], NDArray[np.bool_]]] = []
        for part in parts:
            ids = np.frombuffer(part.ids, np.int32)
            learned = np.frombuffer(part.learned, np.uint8).astype(np.bool_)
            ends = np.cumsum(np.frombuffer(part.lengths, np.int64)).tolist()
            if pairs:
                ends = ends[: len(ends) // 2 * 2]  # a part may end where a pair's first row does
            starts = [0, *ends]
            self._rows += [
                (ids[start:end], learned[start:end])
                for start, end in zip(starts, ends, strict=False)
            ]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(ids) for ids, _ in self._rows], np.int64)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return self._rows[index]


def packed_file(
    path: Path, renderer: Renderer, report: CheckReport, way: Way, batch: int
) -> Packed | None:
    """For a file that was checked, with steps of `batch` rows or pairs; None where nothing of it
    can be tokenised."""
    if report.kind is RowKind.RFT or not report.complete:
        return None
    size = path.stat().st_size
    whole = size <= _WHOLE_BYTES
    setup = TokenSetup(
        path=str(path.absolute()),
        model=(str(renderer.folder), renderer.moment),
        kind=report.kind,
        limit=report.limits.max_row_tokens or renderer.context_tokens,
        skip=np.array(report.bad_lines, np.int64).tobytes() if whole else b"",
    )
    read = begin_tokens(setup, renderer)
    chunks = [Chunk(0, size, 1)] if whole else _spread(path, size)
    try:
        sample = _Sample([read(chunk) for chunk in chunks], pairs=way.pairs)
    except AfinaError:
        return None
    return _packed(sample, way, batch, 0)


def packed_run(spec: RunSpec) -> Packed | None:
    """For a run whose shards stand; None where they do not."""
    try:
        rows = Shards.open(Path(spec.training.path))
    except (AfinaError, OSError):
        return None
    return _packed(rows, Way.of_run(spec), spec.batch_size, spec.seed)


def _spread(path: Path, size: int) -> list[Chunk]:
    """Parts from all over a file, each beginning and ending with a line."""
    found = []
    with path.open("rb") as file:
        for number in range(_PARTS):
            file.seek(number * size // _PARTS)
            if number:
                file.readline()
            start = file.tell()
            file.seek(start + _WHOLE_BYTES // _PARTS)
            file.readline()
            found.append(Chunk(start, file.tell(), 1))
    return [chunk for chunk in found if chunk.start < chunk.end]


def _packed(rows: Rows, way: Way, batch: int, seed: int) -> Packed | None:
    billed = computed = largest = 0
    for chosen in _steps(len(rows) // 2 if way.pairs else len(rows), batch, seed):
        taken = [row for pair in chosen for row in (2 * pair, 2 * pair + 1)]
        taken = taken if way.pairs else list(chosen)
        tokens = [int(rows.lengths[row]) for row in taken]
        capacities = bin_capacities(2 * max(tokens) if way.pairs else max(tokens))
        bins = (
            pair_bins(rows, chosen, capacities, share=way.shares)
            if way.pairs
            else plan_bins(rows, taken, capacities, share=way.shares)
        )
        billed += sum(tokens)
        for one in bins:
            used = sum(len(rows.row(row)[0]) for row in one.rows)
            used -= sum((len(family.rows) - 1) * family.shared for family in one.families)
            computed += used
            largest = max(largest, used)
        if billed >= _PLANNED_TOKENS:
            break
    if not billed:
        return None
    return Packed(share=computed / billed, largest=largest)


def _steps(units: int, batch: int, seed: int) -> Iterator[tuple[int, ...]]:
    """The first steps of an epoch."""
    order = epoch_order(units, seed, 1)
    for step in range(min(_STEPS, -(-units // batch))):
        yield rows_of_step(order, batch, step)
