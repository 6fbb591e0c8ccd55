"""Which precision a machine computes in, decided without torch from what its processor says."""

from __future__ import annotations

from typing import Final, Literal

from afina.domain.runs import Precision

_BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def resolve_precision(
    asked: Literal["auto", "bf16", "fp32"], cpu_flags: str, *, cuda: bool = False
) -> Precision:
    """`asked`, or for `auto` bf16 where the processor multiplies it natively or CUDA is there.

    `cpu_flags` is a text that holds the processor's flags as words, such as /proc/cpuinfo's.
    """
    if asked != "auto":
        return asked
    native = not _BF16_FLAGS.isdisjoint(cpu_flags.split())
    return "bf16" if native or cuda else "fp32"
