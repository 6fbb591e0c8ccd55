"""What was found in parts of a file, kept for the next check of nearly the same file.

A draft of a hundred thousand rows is checked after each edit, and its rows keep their lines: of the
parts of some thousand lines one alone is another, and the others' tallies are read instead of
counted anew. A tally is kept under the hash of all that it depends on, the code that counts too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from afina.data.beside import processes_for, run_chunks
from afina.data.chunks import Chunk
from afina.data.inspection import WORK, CheckSetup
from afina.data.tally import Tally

_LINES: Final = 2_000
_CODE: Final = tuple(Path(__file__).parents[1] / name for name in ("domain", "text", "data"))
"""The packages that a check is made of."""
_DECODER: Final = msgspec.msgpack.Decoder(Tally)
Look = Callable[[Chunk, int | None], Tally]


@dataclass(frozen=True)
class _Part:
    chunk: Chunk
    key: str


class KeptTallies:
    """A folder of tallies of one file as it was last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(
        self, path: Path, setup: CheckSetup, model: str, here: Look, worth_bytes: int
    ) -> Generator[tuple[Chunk, Tally], None, None]:
        """Each part of `path` and what is in it. `model` is what the tallies depend on of the
        renderer; `here` looks at a part; from `worth_bytes` of new parts on, processes beside this
        one do."""
        self._folder.mkdir(exist_ok=True)
        about = msgspec.json.encode([code_hash(_CODE), model, setup])
        parts = list(_parts_of(path, about))
        known = {part.key for part in parts if self._place(part.key).exists()}
        missing = [part.chunk for part in parts if part.key not in known]
        large = sum(chunk.end - chunk.start for chunk in missing) >= worth_bytes
        processes = processes_for(path, worth_bytes) if large else 1
        with contextlib.closing(_looked_at(missing, setup, here, processes)) as fresh:
            for part in parts:
                tally = self._find(part.key) if part.key in known else None
                if tally is None:
                    tally = here(part.chunk, None) if part.key in known else next(fresh)
                    self._keep(part.key, tally)
                yield part.chunk, tally
        self._sweep({part.key for part in parts})

    def _place(self, key: str) -> Path:
        return self._folder / key

    def _find(self, key: str) -> Tally | None:
        """None where it is damaged or gone."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return _DECODER.decode(self._place(key).read_bytes())
        return None

    def _keep(self, key: str, tally: Tally) -> None:
        """Whole or not at all; a full disk costs the next check its time and nothing else."""
        half = self._place(f"{key}.part")
        with contextlib.suppress(OSError):
            half.write_bytes(msgspec.msgpack.encode(tally))
            half.replace(self._place(key))

    def _sweep(self, used: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name not in used:
                path.unlink(missing_ok=True)


@functools.cache
def code_hash(folders: tuple[Path, ...]) -> str:
    """The hash of all modules under the folders, read once a process: what runs was read then."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            code = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(code)}\0".encode() + code)
    return digest.hexdigest()


def _looked_at(
    chunks: list[Chunk], setup: CheckSetup, here: Look, processes: int
) -> Generator[Tally, None, None]:
    if processes > 1:
        yield from (tally for _, tally in run_chunks(WORK, setup, chunks, processes))
    else:
        yield from (here(chunk, None) for chunk in chunks)


def _parts_of(path: Path, about: bytes) -> Iterator[_Part]:
    """Parts of so many lines, whatever their bytes; lines are counted as everywhere, where a lone
    CR ends one too."""
    start, first_line = 0, 1
    with path.open("rb") as file:
        while lines := list(islice(file, _LINES)):
            raw = b"".join(lines)
            returns = raw.count(b"\r")
            ends = raw.count(b"\n") + (returns - raw.count(b"\r\n") if returns else 0)
            digest = hashlib.sha256(about + b"\0%d\0" % first_line + raw).hexdigest()
            yield _Part(Chunk(start, start + len(raw), first_line), digest)
            start, first_line = start + len(raw), first_line + ends
