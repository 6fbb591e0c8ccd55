"""The compiled kernels: `source/*.c` as one shared library, or None where they cannot run.

They are compiled at first use, by the machine's own C compiler, for what its processor has: matrix
tiles (AMX), else vectors that multiply bf16 (AVX-512 BF16) where that pays, else vectors that
multiply fp32 (AVX-512), else halves of such vectors (AVX2). They are kept in the user's cache
folder under a name that says what they were made of. Without such a processor or a compiler, torch
computes everything, as it does where `AFINA_KERNELS=off`. Results of one way are as good as those
of another, and not the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import torch

from afina.model.kernels.machine import (
    HALVES_NEED,
    TILES_NEED,
    VECTORS_NEED,
    WIDE_NEED,
    bf16_vectors_pay,
    compiler,
    why_none,
)
from afina.settings import kernels_wanted

SOURCE: Final = Path(__file__).parent / "source"
_FLAGS: Final = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    # a product and a sum are one operation only where a kernel says so
    "-ffp-contract=off",
    "-mavx2",
    "-mfma",
    "-mf16c",
)
_OF_WIDE: Final = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
_OF_VECTORS: Final = (*_OF_WIDE, "-mavx512bf16")
_ARCH_PRCTL: Final = 158
_ASK_FOR_STATE: Final = 0x1023
_TILE_DATA: Final = 18
"""Linux gives a process matrix tiles when it asks (Documentation/arch/x86/xstate.rst)."""
_PATIENCE_S: Final = 600
"""Seconds for one file, of which a crowded machine needs many."""
_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Way:
    """Instructions that the kernels are made of."""

    name: str
    needed: tuple[str, ...]
    """Of the processor, by the names of /proc/cpuinfo."""
    flags: tuple[str, ...]
    """Of the compiler, beside those of all ways."""


HALVES: Final = Way("halves of vectors", HALVES_NEED, ("-DAFINA_HALVES=1",))
WIDE: Final = Way("vectors in fp32", WIDE_NEED, (*_OF_WIDE, "-DAFINA_WIDE=1"))
VECTORS: Final = Way("vectors", VECTORS_NEED, _OF_VECTORS)
TILES: Final = Way(
    "matrix tiles",
    TILES_NEED,
    (*_OF_VECTORS, "-DAFINA_TILES=1", "-mamx-tile", "-mamx-bf16"),
)
SLOW_TILES: Final = Way(
    "matrix tiles number by number", VECTORS_NEED, (*_OF_VECTORS, "-DAFINA_TILES=2")
)
"""What tiles compute, for tests on processors without them."""
_QUICKEST_FIRST: Final = {
    "auto": (TILES, VECTORS, WIDE, HALVES),
    "vectors": (VECTORS, WIDE, HALVES),
    "wide": (WIDE, HALVES),
    "halves": (HALVES,),
}
"""By what the setting `kernels` allows."""


@dataclass(frozen=True)
class Loaded:
    """The kernels, or why there are none."""

    kernels: ctypes.CDLL | None
    text: str
    remedy: str = ""
    name: str = "none"
    """What they were made of, in a word: results of other kernels may be other bits."""


def library() -> ctypes.CDLL | None:
    """The kernels, compiled and loaded; None where torch has to do."""
    return loaded().kernels


@functools.cache
def loaded() -> Loaded:
    """The kernels, or why there are none, which the log says once."""
    found = load()
    if found.kernels is None:
        _LOG.info("kernels.absent", reason=found.text)
    return found


def load() -> Loaded:
    """Compiles them, if need be, and loads them, in the quickest way that goes and that the setting
    allows: `vectors` forgoes tiles, `wide` bf16 products too, `halves` AVX-512."""
    wanted = kernels_wanted()
    ways = _QUICKEST_FIRST.get(wanted, _QUICKEST_FIRST["auto"])
    if wanted != "vectors" and not bf16_vectors_pay():
        ways = tuple(way for way in ways if way is not VECTORS)
    for way in ways:
        found = load_way(way)
        if found.kernels is not None:
            return found
    return found


def load_way(way: Way) -> Loaded:
    """The kernels made one way, or why they cannot be."""
    refused = why_none(way.needed)
    if refused is not None:
        return Loaded(None, *refused)
    if way is TILES and not _lent_tiles():
        return Loaded(None, "none, as the system lends this process no matrix tiles")
    made_by, openmp = compiler(), _openmp()
    assert made_by is not None
    if openmp is None:
        return Loaded(None, "none beside a torch whose threads are not those of libgomp")
    try:
        found = _compiled([made_by, *_FLAGS, *way.flags])
        # the pool of threads that torch's own products use
        ctypes.CDLL(str(openmp), ctypes.RTLD_GLOBAL)
        text = f"{way.name}, made by {made_by}, kept as {found}"
        return Loaded(ctypes.CDLL(str(found)), text, name=found.stem)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        return Loaded(
            None,
            f"could not be made: {said[:500]}.",
            'Look at compiler and folder, or set kernels = "off" in afina.toml.',
        )


def _lent_tiles() -> bool:
    """Asks the system for matrix tiles; whether this process has them."""
    system = ctypes.CDLL(None)
    asked = [ctypes.c_long(one) for one in (_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA)]
    return bool(system.syscall(*asked) == 0)


def _openmp() -> Path | None:
    folder = Path(torch.__file__).parent / "lib"
    return next(iter(sorted(folder.glob("libgomp*.so*"))), None)


def _compiled(command: list[str]) -> Path:
    """The library's file; compiled if it isn't there. Raises OSError and SubprocessError."""
    parts = sorted(SOURCE.glob("*.[ch]"))
    digest = hashlib.sha256("\0".join(command).encode())
    for part in parts:
        digest.update(part.read_bytes())
    folder = _folder()
    path = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder) as made:
        objects = [Path(made) / f"{part.stem}.o" for part in parts if part.suffix == ".c"]
        with ThreadPoolExecutor() as pool:  # the compilers compute, these threads wait
            done = pool.map(
                lambda made: _run(
                    [*command, "-c", str(SOURCE / f"{made.stem}.c"), "-o", str(made)]
                ),
                objects,
            )
            list(done)
        whole = Path(made) / path.name
        _run([*command, "-shared", *map(str, objects), "-o", str(whole)])
        whole.replace(path)  # whole or not at all: others may be compiling too
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE_S)


def _folder() -> Path:
    """A folder that is this user's alone: what lies there is loaded as code."""
    folder = Path.home() / ".cache" / "afina" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    folder.chmod(0o700)
    return folder
