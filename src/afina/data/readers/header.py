"""Which row of a table holds the names of its columns: the first, or one below a title."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from afina.data.columns import name_a_pair
from afina.data.readers.records import unique_columns
from afina.data.remarks import Remark, remark

_LOOKED_AT: Final = 10


@dataclass(frozen=True)
class Header:
    """The names, the line they stand in, the rows below, and what is to be said about it."""

    names: list[str]
    line: int
    rows: Iterator[tuple[int, list[str]]]
    note: Remark | None


def find_header(rows: Iterator[tuple[int, list[str]]], wanted: Sequence[str]) -> Header | None:
    """The first row that is not empty; one of the next rows where that one names neither what the
    user asked for nor a question and an answer, and the other does (titles, merged headings). A row
    of one cell above wider ones is a title too, whatever they are called. None where there is no
    row."""
    looked_at = list(islice(rows, _LOOKED_AT))
    filled = [n for n, (_, cells) in enumerate(looked_at) if any(c.strip() for c in cells)]
    if not filled:
        if not looked_at:
            return None
        filled = [0]
    first = filled[0]
    place = first
    if not _names(looked_at[first][1], wanted):
        place = next((n for n in filled if _names(looked_at[n][1], wanted)), first)
        if place == first and _width(looked_at[first][1]) == 1:
            place = next((n for n in filled if _width(looked_at[n][1]) > 1), first)
    line, names = looked_at[place]
    note = None
    if place != first:
        note = remark("header_line", line=line)
    return Header(names, line, chain(looked_at[place + 1 :], rows), note)


def _width(cells: Sequence[str]) -> int:
    return sum(1 for cell in cells if cell.strip())


def _names(cells: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether cells can be the names of columns, with equal ones told apart as they will be."""
    return name_a_pair(cells, wanted) or name_a_pair(unique_columns(list(cells)), wanted)
