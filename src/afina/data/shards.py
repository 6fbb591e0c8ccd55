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
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.data.beside import processes_for, run_chunks
from afina.data.chunks import Chunk, chunks_of
from afina.data.kinds import RowKind
from afina.data.shard_files import ShardFile, ShardWriter, replace_file, sha256_of
from afina.data.tokenising import WORK, TokenPart, TokenSetup, begin_tokens
from afina.domain.codec import decode, encode
from afina.domain.runs import DataSpec
from afina.errors import DataUnreadable, InvalidRequest
from afina.text.renderer import Renderer

STAGE_VERSION: Final = 2
SHARD_TOKENS: Final = 4_000_000
MANIFEST: Final = "manifest.json"
_WORTH_BYTES: Final = 16 << 20
"""From so many bytes on several processes are faster than one."""


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
    processes: int | None = None,
) -> DataSpec:
    """Tokenises `blob` into a folder under `target` and says what is there; where the folder
    stands already, only that. A large file is tokenised by several `processes` (None: as many as
    are worth their start); the bytes are the same. Raises InvalidRequest for a row that the check
    would have named."""
    options = options or ShardOptions()
    source = sha256_of(blob)
    folder = target / _key(source, renderer, options)
    if not (folder / MANIFEST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        count = processes_for(blob, _WORTH_BYTES) if processes is None else processes
        manifest = _Build(blob, renderer, folder, options).run(source, count, progress)
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


class _Build:
    """One pass over a file, writing a shard whenever enough tokens are there."""

    def __init__(self, blob: Path, renderer: Renderer, folder: Path, options: ShardOptions) -> None:
        self._blob = blob
        self._renderer = renderer
        self._options = options
        self._writer = ShardWriter(folder, options.shard_tokens)
        self._skipped = 0

    def run(
        self, source: str, processes: int, progress: Callable[[int, int], None] | None
    ) -> Manifest:
        """Everything but the manifest's own writing."""
        total = self._blob.stat().st_size
        with closing(self._parts(processes)) as parts:
            for chunk, part in parts:
                self._skipped += part.skipped
                self._writer.add_rows(
                    np.frombuffer(part.ids, np.int32),
                    np.frombuffer(part.learned, np.uint8),
                    np.frombuffer(part.lengths, np.int64),
                    np.frombuffer(part.lines, np.int64),
                )
                if part.refused is not None:
                    raise _refused(*part.refused)
                if progress is not None:
                    progress(chunk.end, total)
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

    def _parts(self, processes: int) -> Generator[tuple[Chunk, TokenPart], None, None]:
        skip = np.array(self._options.skip_lines or (), np.int64)
        setup = TokenSetup(
            path=str(self._blob.absolute()),
            model=(str(self._renderer.folder), self._renderer.moment),
            kind=self._options.kind,
            limit=self._options.max_row_tokens or self._renderer.context_tokens,
            skip=skip.tobytes(),
        )
        chunks = chunks_of(self._blob)
        if processes > 1:
            return run_chunks(WORK, setup, chunks, processes)
        one = begin_tokens(setup, self._renderer)
        return ((chunk, one(chunk)) for chunk in chunks)


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
