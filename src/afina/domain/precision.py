"""Which precision a machine computes in, decided without torch from what its processor says.

A processor without products of bf16 computes in fp32, which torch does well there and bf16 badly.
The kernels compute in bf16 on it all the same, faster and in half of the memory, but not all
networks and runs: so a base says by which means it is in bf16 (decision 0450)."""

from __future__ import annotations

from typing import Final, Literal

from afina.domain.models import BaseModel
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


BY_KERNELS: Final = "kernels"
"""What a base's capability `bf16_by` says where only kernels make bf16 worth while."""


def precision_of_base(
    asked: Literal["auto", "bf16", "fp32"],
    base: BaseModel,
    native: Precision,
    *,
    by_kernels: bool = True,
) -> Precision:
    """`asked`, else what the base's probe recorded, else `native`. fp32 where the base is in bf16
    by kernels and what is computed is not `by_kernels`."""
    if asked != "auto":
        return asked
    probed = base.capabilities.get("precision")
    if probed == "bf16":
        lacking = base.capabilities.get("bf16_by") == BY_KERNELS and not by_kernels
        return "fp32" if lacking else "bf16"
    return "fp32" if probed == "fp32" else native
