"""How a step lies in memory: groups of rows that are computed alike, one after the other.

A group is `rows` sequences with `width` new positions each (1 for decoding, a chunk's length
otherwise) over `context` cached positions. Rows, widths, contexts and the step as a whole are
rounded up to few sizes, because oneDNN builds a kernel for each new shape. What is added is
padding: it writes to a block that nobody reads. Decoding rows keep their places from step to step,
so that what was gathered for them can be kept too. Plain Python; the runner makes tensors of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from afina.serving.sequences import Chunk, Plan, Sequence

_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_WIDTH_STEP = 16


def rounded_rows(rows: int) -> int:
    """The number of rows that a group of `rows` is padded to."""
    for size in _ROWS:
        if rows <= size:
            return size
    return -(-rows // 64) * 64


def rounded_tokens(tokens: int) -> int:
    """The number of positions that a step of `tokens` is padded to."""
    if tokens <= 32:
        return rounded_rows(tokens)
    step = 16 if tokens <= 128 else 32
    return -(-tokens // step) * step


def rounded_context(positions: int, block_tokens: int) -> int:
    """The number of cached positions that a group reads, whole blocks."""
    step = 32 if positions <= 256 else 64 if positions <= 512 else 256
    step = max(step, block_tokens)
    step = -(-step // block_tokens) * block_tokens
    return -(-positions // step) * step


@dataclass
class Row:
    """A sequence's part in a step: positions `start` to `start + length`."""

    sequence: Sequence
    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass
class Group:
    """Rows of one width and one context, with padding (None) among them; they begin at position
    `offset` of the step."""

    members: list[Row | None]
    width: int
    context: int
    kind: int | None = None
    """For decoding rows: the class of their contexts, the same from step to step."""
    offset: int = 0

    @property
    def rows(self) -> int:
        return len(self.members)

    @property
    def positions(self) -> int:
        return self.rows * self.width

    def real(self) -> Iterator[tuple[int, Row]]:
        """The members that are not padding, with their places."""
        return ((i, row) for i, row in enumerate(self.members) if row is not None)


@dataclass
class Layout:
    """A step: its groups and its whole length, padding included."""

    groups: list[Group] = field(default_factory=list)
    tokens: int = 0


class DecodeRows:
    """Remembers which sequence decodes in which row."""

    def __init__(self) -> None:
        self._kinds: dict[int, list[Sequence | None]] = {}

    def place(self, decodes: Iterable[Sequence]) -> dict[int, list[Sequence | None]]:
        """Rows for this step's sequences, by the class of their contexts: whoever was there keeps
        its row, newcomers fill the gaps."""
        wanted: dict[int, list[Sequence]] = {}
        for sequence in decodes:
            wanted.setdefault(_context_class(sequence.computed), []).append(sequence)
        self._kinds = {
            kind: _placed(self._kinds.get(kind, []), wanted[kind]) for kind in sorted(wanted)
        }
        return self._kinds


def _placed(before: list[Sequence | None], wanted: list[Sequence]) -> list[Sequence | None]:
    rows: list[Sequence | None] = [None] * rounded_rows(len(wanted))
    left = set(wanted)
    for row, sequence in enumerate(before[: len(rows)]):
        if sequence in left:
            rows[row] = sequence
            left.discard(sequence)
    newcomers = (sequence for sequence in wanted if sequence in left)
    return [next(newcomers, None) if row is None else row for row in rows]


def lay_out(plan: Plan, block_tokens: int, decode_rows: DecodeRows, smallest: int = 1) -> Layout:
    """The layout of a plan's decoding rows and chunks. `smallest` pads tiny steps."""
    layout = Layout()
    for kind, sequences in decode_rows.place(plan.decodes).items():
        rows = [None if s is None else Row(s, s.computed, 1) for s in sequences]
        layout.groups.append(_group(rows, 1, block_tokens, kind))
    for alike in _alike(plan.chunks):
        layout.groups.append(_group([*alike], _width(max(r.length for r in alike)), block_tokens))
    for group in layout.groups:
        group.offset = layout.tokens
        layout.tokens += group.positions
    layout.tokens = max(rounded_tokens(layout.tokens), smallest)
    return layout


def _alike(chunks: Iterable[Chunk]) -> list[list[Row]]:
    """Chunks in groups of like cost: contexts within a factor of two, widths within a step."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for chunk in chunks:
        row = Row(chunk.sequence, chunk.start, chunk.length)
        key = _width(row.length), _context_class(row.stop - 1)
        groups.setdefault(key, []).append(row)
    return [groups[key] for key in sorted(groups)]


def _context_class(last_position: int) -> int:
    return max(last_position, 127).bit_length()


def _width(length: int) -> int:
    return -(-length // _WIDTH_STEP) * _WIDTH_STEP


def _group(
    members: list[Row | None], width: int, block_tokens: int, kind: int | None = None
) -> Group:
    longest = max(row.stop for row in members if row is not None)
    return Group(members, width, rounded_context(longest, block_tokens), kind)
