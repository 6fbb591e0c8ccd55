"""How a step lies in memory: decoding rows first, then the chunks of prompts, one after the other.

A step is one flat row of positions, so that no product computes padding but for a few positions at
its end. Attention works in groups: rows of like width (1 for decoding, a chunk's length otherwise)
over like contexts, padded there alone. Rows, widths, contexts and the step as a whole are rounded
up to few sizes, because oneDNN builds a kernel for each new shape. Decoding rows keep their places
from step to step, so that what was gathered for them can be kept too. Plain Python; the runner
makes tensors of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from afina.serving.sequences import Plan, Sequence

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
    """A sequence's part in a step: its positions `start` to `start + length`, which are the step's
    from `at` on."""

    sequence: Sequence
    start: int
    length: int
    at: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.length

    @property
    def prompted(self) -> int:
        """How many of its positions are the prompt's; the others were sampled."""
        return max(0, min(self.length, len(self.sequence.prompt.ids) - self.start))


@dataclass
class Group:
    """Rows that attention computes together, with padding (None) among them. Decoding rows lie at
    `offset` with their padding; those of chunks lie where each says."""

    members: list[Row | None]
    width: int
    context: int
    kind: int | None = None
    """For decoding rows: the class of their contexts, the same from step to step."""
    offset: int = 0

    @property
    def rows(self) -> int:
        return len(self.members)

    def real(self) -> Iterator[tuple[int, Row]]:
        """The members that are not padding, with their places."""
        return ((i, row) for i, row in enumerate(self.members) if row is not None)


@dataclass(frozen=True)
class Span:
    """Positions of prompts that share an adapter, one behind the other."""

    start: int
    stop: int
    adapter: str


@dataclass
class Layout:
    """A step: its groups, and its whole length, padding included."""

    groups: list[Group] = field(default_factory=list)
    tokens: int = 0
    decodes: int = 0
    """Positions of decoding rows, padding included; they come first."""

    def rows(self) -> Iterator[Row]:
        """All rows that are not padding, group by group."""
        return (row for group in self.groups for _, row in group.real())

    def sampled_adapters(self) -> list[str | None]:
        """For each position up to the last that was sampled, not prompted: its adapter, or None for
        the base, a prompt or padding."""
        found: list[str | None] = []
        for row in sorted(self.rows(), key=lambda row: row.at):
            if row.prompted < row.length:
                found += [None] * (row.at + row.prompted - len(found))
                found += [row.sequence.prompt.adapter] * (row.length - row.prompted)
        return found

    def sampled_positions(self) -> list[int] | None:
        """The positions that were sampled, not prompted; None if no position was prompted."""
        rows = list(self.rows())
        if not any(row.prompted for row in rows):
            return None
        return [at for row in rows for at in range(row.at + row.prompted, row.at + row.length)]

    def prompt_spans(self) -> list[Span]:
        """Where prompts with adapters lie."""
        found: list[Span] = []
        for row in sorted(self.rows(), key=lambda row: row.at):
            adapter = row.sequence.prompt.adapter
            if adapter is None or not row.prompted:
                continue
            start, stop = row.at, row.at + row.prompted
            if found and (found[-1].stop, found[-1].adapter) == (start, adapter):
                start = found.pop().start
            found.append(Span(start, stop, adapter))
        return found


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
        offset = layout.decodes
        rows = [
            None if s is None else Row(s, s.computed, 1, offset + i)
            for i, s in enumerate(sequences)
        ]
        layout.groups.append(_group(rows, 1, block_tokens, kind, offset))
        layout.decodes += len(rows)
    tokens = layout.decodes
    chunks = [Row(c.sequence, c.start, c.length) for c in plan.chunks]
    chunks += [Row(s, s.computed, 1 + len(s.draft)) for s in plan.checks]
    # What was sampled comes first (see sampled_adapters), prompts of one adapter together.
    for row in sorted(chunks, key=_place_in_step):
        row.at = tokens
        tokens += row.length
    for alike in _alike(chunks):
        width = _width(max(row.length for row in alike))
        padding = [None] * (rounded_rows(len(alike)) - len(alike))
        layout.groups.append(_group([*alike, *padding], width, block_tokens))
    layout.tokens = max(rounded_tokens(tokens), smallest)
    return layout


def _place_in_step(row: Row) -> tuple[bool, str]:
    return row.prompted == row.length, row.sequence.prompt.adapter or ""


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Chunks in groups of like cost: contexts within a factor of two, widths within a step."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        key = _width(row.length), _context_class(row.stop - 1)
        groups.setdefault(key, []).append(row)
    return [groups[key] for key in sorted(groups)]


def _context_class(last_position: int) -> int:
    return max(last_position, 127).bit_length()


def _width(length: int) -> int:
    return -(-length // _WIDTH_STEP) * _WIDTH_STEP


def _group(
    members: list[Row | None],
    width: int,
    block_tokens: int,
    kind: int | None = None,
    offset: int = 0,
) -> Group:
    longest = max(row.stop for row in members if row is not None)
    return Group(members, width, rounded_context(longest, block_tokens), kind, offset)
