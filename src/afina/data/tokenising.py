"""One part of a file as tokens: the rows of shards in their order, or the first line that has none.

The template (Python's work) writes one batch while the tokenizer encodes another, beside the
interpreter; a large file is tokenised by several processes (see `afina.data.beside`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from afina.data.beside import Work
from afina.data.chunks import Chunk
from afina.data.kinds import RowKind, chats_of, read_pair
from afina.data.lines import LineReader, SourceLine
from afina.data.raw_text import pair_row
from afina.data.rows import quick_value, slow_value
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer, TokenRow

_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_LINE_BYTES: Final = 64 << 20
_DEPTH: Final = 64


class TokenSetup(msgspec.Struct, frozen=True):
    """What decides the tokens of a part."""

    path: str
    model: tuple[str, int | None]
    """The folder of the renderer, and the moment that its template is told."""
    kind: RowKind
    limit: int
    """Tokens that a row may have."""
    skip: bytes = b""
    """int64: lines not to take, ascending."""


class TokenPart(msgspec.Struct):
    """Rows behind each other. `refused` is the first line that cannot be tokenised, and why; what
    came before it is there."""

    ids: bytes = b""
    """int32 of all rows; `learned` uint8 of the same length; `lengths` and `lines` int64 a row."""
    learned: bytes = b""
    lengths: bytes = b""
    lines: bytes = b""
    skipped: int = 0
    refused: tuple[int, str] | None = None


def begin_tokens(
    setup: TokenSetup, renderer: Renderer | None = None
) -> Callable[[Chunk], TokenPart]:
    """A function from a part to its tokens."""
    known = renderer or Renderer.load(Path(setup.model[0]), setup.model[1])
    skip = np.frombuffer(setup.skip, np.int64)
    return lambda chunk: _Tokens(setup, known, skip).run(chunk)


WORK: Final = Work(__name__, TokenSetup, TokenPart, begin_tokens)


class _Refused(Exception):
    """A line cannot be tokenised."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line)
        self.place = (line, why)


@dataclass(frozen=True)
class _Encoding:
    """A batch that another thread encodes: the line of each chat, and what they become."""

    lines: list[int]
    rows: Future[list[tuple[TokenRow, ...] | InvalidRequest]]


class _Tokens:
    def __init__(self, setup: TokenSetup, renderer: Renderer, skip: NDArray[np.int64]) -> None:
        self._setup = setup
        self._renderer = renderer
        self._skip = skip
        self._rows: list[TokenRow] = []
        self._lines: list[int] = []
        self._skipped = 0

    def run(self, chunk: Chunk) -> TokenPart:
        refused: tuple[int, str] | None = None
        reader = chunk.lines(Path(self._setup.path), _LINE_BYTES)
        with ThreadPoolExecutor(1, "tokenizer") as beside:
            waiting: _Encoding | None = None
            try:
                for batch in self._batches(reader):
                    # the tokenizer encodes one batch while the template writes the next
                    begun = self._begin(batch, beside)
                    taken, waiting = waiting, begun
                    if taken is not None:
                        self._take(taken)
            except _Refused as error:
                refused = error.place
            if waiting is not None:
                try:
                    self._take(waiting)
                except _Refused as error:
                    refused = min(error.place, refused or error.place)
        return self._part(refused)

    def _part(self, refused: tuple[int, str] | None) -> TokenPart:
        rows = self._rows
        lengths = np.array([len(row.ids) for row in rows], np.int64)
        none: list[NDArray[Any]] = [np.zeros(0, np.int32)]
        return TokenPart(
            ids=np.concatenate(none + [row.ids for row in rows]).astype(np.int32).tobytes(),
            learned=np.concatenate(none + [row.learned for row in rows]).astype(np.uint8).tobytes(),
            lengths=lengths.tobytes(),
            lines=np.array(self._lines, np.int64).tobytes(),
            skipped=self._skipped,
            refused=refused,
        )

    def _batches(self, reader: LineReader) -> Iterator[list[tuple[int, Any]]]:
        batch: list[tuple[int, Any]] = []
        size = 0
        for line in self._wanted(reader):
            try:
                batch.append((line.number, self._row(line)))
            except _Refused:
                if batch:
                    yield batch  # a line before this one may be refused too
                raise
            size += line.size
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _wanted(self, reader: LineReader) -> Iterator[SourceLine]:
        """The lines that are neither blank nor to be skipped."""
        skip = self._skip
        at: int | None = None
        for line in reader:
            if line.is_blank:
                continue
            if at is None:
                at = int(np.searchsorted(skip, line.number))
            if at < len(skip) and skip[at] == line.number:
                self._skipped += 1
                at += 1
                continue
            yield line

    def _row(self, line: SourceLine) -> Any:
        """The chats of a line, or its pair of raw texts."""
        kind = self._setup.kind
        try:
            if line.raw is None:
                raise ValueError("the line is too long")
            value = quick_value(line.raw, _DEPTH)
            row = slow_value(line.raw) if value is msgspec.UNSET else value
            if kind is RowKind.PROMPT_COMPLETION:
                return read_pair(row)
            chats = chats_of(kind, row)
            if not all(isinstance(messages, list) for messages, _ in chats):
                raise TypeError("messages is no list")
            return chats
        except (ValueError, LookupError, TypeError, RecursionError):
            what = "chat" if kind is RowKind.CHAT else kind.value.replace("_", " ")
            raise _Refused(line.number, f"It is no {what}.") from None

    def _begin(self, batch: list[tuple[int, Any]], beside: ThreadPoolExecutor) -> _Encoding:
        """Has a batch encoded by another thread."""
        renderer = self._renderer
        if self._setup.kind is RowKind.PROMPT_COMPLETION:
            pairs = [pair for _, pair in batch]
            return _Encoding(
                [line for line, _ in batch],
                beside.submit(lambda: [(pair_row(pair, renderer),) for pair in pairs]),
            )
        plans = renderer.plan_rows(chat for _, chats in batch for chat in chats)
        lines = [line for line, chats in batch for _ in chats]
        return _Encoding(lines, beside.submit(renderer.encode_plans, plans))

    def _take(self, begun: _Encoding) -> None:
        """Puts the rows of a batch down."""
        limit = self._setup.limit
        for line, rows in zip(begun.lines, begun.rows.result(), strict=True):
            if isinstance(rows, InvalidRequest):
                raise _Refused(line, rows.message)
            if self._setup.kind is RowKind.PREFERENCE and len(rows) != 1:
                raise _Refused(line, "Its answers cannot be told from what stands before them.")
            for row in rows:
                if len(row.ids) > limit:
                    raise _Refused(line, f"It has {len(row.ids)} tokens; {limit} can be read.")
                self._rows.append(row)
                self._lines.append(line)
