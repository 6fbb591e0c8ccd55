"""Tokenised rows on disk: a folder of safetensors files and a manifest written last.

    manifest.json            Manifest; where it stands, the folder is whole
    shard-00000.safetensors  ids int32[n], learned uint8[n], offsets int64[rows + 1],
                             lines int64[rows]

Building is a function of the file's bytes, the renderer, the options and the stage's version; the
folder's name is the hash of all four. Two builders at once write the same bytes, each file by
rename, so neither harms the other.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from afina.data.kinds import RowKind, chats_of, read_pair
from afina.data.lines import LineReader, SourceLine
from afina.data.raw_text import pair_row
from afina.data.rows import quick_value, slow_value
from afina.data.shard_files import ShardFile, ShardWriter, replace_file, sha256_of
from afina.domain.codec import decode, encode
from afina.domain.runs import DataSpec
from afina.errors import DataUnreadable, InvalidRequest
from afina.text.renderer import Renderer, TokenRow

STAGE_VERSION: Final = 1
SHARD_TOKENS: Final = 4_000_000
MANIFEST: Final = "manifest.json"
_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_LINE_BYTES: Final = 64 << 20
_DEPTH: Final = 64


@dataclass(frozen=True)
class ShardOptions:
    """What changes the shards beside the file and the renderer."""

    skip_lines: array[int] | None = None
    """Lines not to take, ascending: those that the check found bad."""
    max_row_tokens: int | None = None
    """Longer rows are refused by name (the check names them before)."""
    shard_tokens: int = SHARD_TOKENS
    kind: RowKind = RowKind.CHAT
    """What the file's rows are. A preference becomes two rows of shards, one behind the other: the
    chat with the preferred answer, then the one with the other."""


@dataclass(frozen=True)
class ShardRecord:
    """One file of a folder."""

    name: str
    sha256: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class Manifest:
    """manifest.json: what is in a folder and what it was made from."""

    format: int
    stage_version: int
    source_sha256: str
    renderer: str
    rows: int
    rows_skipped: int
    tokens: int
    learned_tokens: int
    longest_row: int
    shards: tuple[ShardRecord, ...]


def build_shards(
    blob: Path,
    renderer: Renderer,
    target: Path,
    options: ShardOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataSpec:
    """Tokenises `blob` into a folder under `target` and says what is there; where the folder
    stands already, only that. Raises InvalidRequest for a row that the check would have named."""
    options = options or ShardOptions()
    source = sha256_of(blob)
    folder = target / _key(source, renderer, options)
    if not (folder / MANIFEST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _Build(blob, renderer, folder, options).run(source, progress)
        text = json.dumps(encode(manifest), indent=1).encode()
        replace_file(folder / MANIFEST, text)
    return _spec(folder)


def _key(source: str, renderer: Renderer, options: ShardOptions) -> str:
    skipped = hashlib.sha256(options.skip_lines.tobytes() if options.skip_lines else b"")
    parts: tuple[str, ...] = (
        str(STAGE_VERSION),
        source,
        renderer.fingerprint,
        skipped.hexdigest(),
        str(options.max_row_tokens),
        str(options.shard_tokens),
    )
    if options.kind is not RowKind.CHAT:
        parts += (options.kind.value,)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _spec(folder: Path) -> DataSpec:
    manifest, digest = _read_manifest(folder)
    return DataSpec(
        path=str(folder.absolute()),
        sha256=digest,
        rows=manifest.rows,
        tokens=manifest.tokens,
        learned_tokens=manifest.learned_tokens,
        longest_row=manifest.longest_row,
    )


def _read_manifest(folder: Path) -> tuple[Manifest, str]:
    try:
        raw = (folder / MANIFEST).read_bytes()
        return decode(Manifest, json.loads(raw)), hashlib.sha256(raw).hexdigest()
    except (OSError, ValueError) as error:
        raise DataUnreadable(
            f"{folder} holds no whole set of shards: {error}.",
            remedy="Remove the folder; it is made again from the file.",
        ) from None


@dataclass(frozen=True)
class _Encoding:
    """A batch that another thread encodes: the line of each chat, and what they become."""

    lines: list[int]
    rows: Future[list[tuple[TokenRow, ...] | InvalidRequest]]


class _Build:
    """One pass over a file, writing a shard whenever enough tokens are there."""

    def __init__(self, blob: Path, renderer: Renderer, folder: Path, options: ShardOptions) -> None:
        self._reader = LineReader(blob, _LINE_BYTES)
        self._renderer = renderer
        self._options = options
        self._limit = options.max_row_tokens or renderer.context_tokens
        self._writer = ShardWriter(folder, options.shard_tokens)
        self._skipped = 0

    def run(self, source: str, progress: Callable[[int, int], None] | None) -> Manifest:
        """Everything but the manifest's own writing."""
        with ThreadPoolExecutor(1, "tokenizer") as beside:
            waiting: _Encoding | None = None
            for batch in self._batches():
                # the tokenizer encodes one batch while the template writes the next
                begun = self._begin(batch, beside)
                if waiting is not None:
                    self._take(waiting)
                waiting = begun
                if progress is not None:
                    progress(self._reader.bytes_read, self._reader.bytes_total)
            if waiting is not None:
                self._take(waiting)
        files = self._writer.finish()
        return Manifest(
            format=1,
            stage_version=STAGE_VERSION,
            source_sha256=source,
            renderer=self._renderer.fingerprint,
            rows=self._writer.rows,
            rows_skipped=self._skipped,
            tokens=self._writer.tokens,
            learned_tokens=self._writer.learned_tokens,
            longest_row=self._writer.longest_row,
            shards=tuple(ShardRecord(f.name, f.sha256, f.rows, f.tokens) for f in files),
        )

    def _batches(self) -> Iterator[list[tuple[int, Any]]]:
        batch: list[tuple[int, Any]] = []
        size = 0
        for line in self._lines():
            batch.append((line.number, self._row(line)))
            size += line.size
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _lines(self) -> Iterator[SourceLine]:
        """The lines that are neither blank nor to be skipped."""
        skip = self._options.skip_lines or array("q")
        for line in self._reader:
            if line.is_blank:
                continue
            if self._skipped < len(skip) and skip[self._skipped] == line.number:
                self._skipped += 1
                continue
            yield line

    def _row(self, line: SourceLine) -> Any:
        """The chats of a line, or its pair of raw texts."""
        kind = self._options.kind
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
            raise _refused(line.number, f"It is no {what}.") from None

    def _begin(self, batch: list[tuple[int, Any]], beside: ThreadPoolExecutor) -> _Encoding:
        """Has a batch encoded by another thread."""
        renderer = self._renderer
        if self._options.kind is RowKind.PROMPT_COMPLETION:
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
        for line, rows in zip(begun.lines, begun.rows.result(), strict=True):
            if isinstance(rows, InvalidRequest):
                raise _refused(line, rows.message)
            if self._options.kind is RowKind.PREFERENCE and len(rows) != 1:
                raise _refused(line, "Its answers cannot be told from what stands before them.")
            for row in rows:
                self._add(line, row)

    def _add(self, line: int, row: TokenRow) -> None:
        if len(row.ids) > self._limit:
            raise _refused(line, f"It has {len(row.ids)} tokens; {self._limit} can be read.")
        self._writer.add(line, row)


def _refused(line: int, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Line {line} cannot be tokenised. {why}",
        code="invalid_file_format",
        remedy="`afina data check` names every such row.",
    )


class Shards:
    """Reads a folder of shards. Rows are numbered from 0 through all files, in the order of the
    source. Files are mapped, not loaded."""

    def __init__(self, files: list[ShardFile]) -> None:
        self._files = files
        self._starts = np.cumsum([0, *(file.rows for file in files)])
        empty = np.zeros(0, dtype=np.int64)
        self.lengths: NDArray[np.int64] = np.concatenate([empty, *(f.lengths for f in files)])
        """Tokens of each row."""
        self.lines: NDArray[np.int64] = np.concatenate([empty, *(f.lines for f in files)])
        """The line of the source file that each row came from."""

    @classmethod
    def open(cls, path: Path) -> Shards:
        """Raises DataUnreadable where the manifest is missing or a file is damaged."""
        manifest, _ = _read_manifest(path)
        files = []
        for record in manifest.shards:
            file = ShardFile.open(path / record.name)
            if (file.rows, file.tokens) != (record.rows, record.tokens):
                raise DataUnreadable(
                    f"{path / record.name} is not what the manifest says.",
                    remedy="Remove the folder; it is made again from the file.",
                )
            files.append(file)
        return cls(files)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Ids of a row and which of them carry loss."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._files[number].row(index - int(self._starts[number]))
