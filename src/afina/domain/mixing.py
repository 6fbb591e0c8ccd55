"""A key for anything random at a place: one well mixed number from several.

The function is SplitMix64's finaliser and will not change, so what a seed means stays the same.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


def splitmix64(value: int) -> int:
    """A fixed, well mixed function of a 64-bit number."""
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def mixed_key(*parts: int) -> int:
    """A number of 63 bits from the parts, in their order."""
    key = 0
    for part in parts:
        key = splitmix64(key ^ (part & _MASK))
    return key >> 1
