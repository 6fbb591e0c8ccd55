"""Whether a machine can have the compiled kernels, without torch: who estimates what a run takes
asks here, who computes asks afina.model.kernels.library."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from afina.settings import kernels_wanted

HALVES_NEED: Final = ("avx2", "fma", "f16c")
"""Of the processor, by the names of /proc/cpuinfo; what follows is for the other ways."""
WIDE_NEED: Final = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
VECTORS_NEED: Final = (*WIDE_NEED, "avx512_bf16")
TILES_NEED: Final = (*VECTORS_NEED, "amx_tile", "amx_bf16")
_COMPILERS: Final = ("cc", "gcc", "clang")


def can_have_kernels() -> bool:
    """Whether kernels will compute here, unless making them fails."""
    return why_none() is None


def why_none(needed: Sequence[str] = HALVES_NEED) -> tuple[str, str] | None:
    """Why this machine has no kernels, and what would give it some; None where they can be made."""
    if kernels_wanted() == "off":
        return "turned off by the setting kernels (AFINA_KERNELS)", ""
    lacking = sorted(set(needed) - _processor("flags"))
    if lacking:
        return f"none for a processor without {', '.join(lacking)}", ""
    if compiler() is None:
        return (
            f"no C compiler was found ({', '.join(_COMPILERS)}).",
            "Training and answers are faster with one: apt-get install gcc.",
        )
    return None


def bf16_vectors_pay() -> bool:
    """Whether vectors multiply bf16 faster than fp32. Intel's multiply it at half of that rate
    (https://github.com/libxsmm/tpp-mlir/pull/1025, and measured: docs/engine.md), as matrix tiles
    are meant to be used there; AMD's at twice."""
    return "GenuineIntel" not in _processor("vendor_id")


def compiler() -> str | None:
    """The machine's C compiler."""
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


def _processor(field: str) -> set[str]:
    """The words of a field of /proc/cpuinfo, of its first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(field)), "").split())
