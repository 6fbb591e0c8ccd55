"""Intervals for shares and for differences of paired observations: 95 %, from small numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Z: Final = 1.959964
"""Of the normal distribution at 97.5 %."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, n: int) -> Interval:
    """A share with Wilson's interval (Wilson 1927), which is right for few observations too."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    p, z2 = hits / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == n else min(1.0, middle + half)
    return Interval(p, low, high, n)


def rise(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """By how much the share of True rose from `before` to `after`, observation by observation.

    Newcombe's interval for paired proportions without correlation (Newcombe 1998, method 8): wider
    than the exact one, never outside [-1, 1].
    """
    n = len(before)
    if n == 0:
        return Interval(0.0, -1.0, 1.0, 0)
    first, second = share(sum(before), n), share(sum(after), n)
    change = second.value - first.value
    low = change - math.hypot(second.value - second.low, first.high - first.value)
    high = change + math.hypot(second.high - second.value, first.value - first.low)
    return Interval(change, max(-1.0, low), min(1.0, high), n)


def mean(values: Sequence[float]) -> Interval:
    """A mean with its normal interval."""
    n = len(values)
    if n == 0:
        return Interval(0.0, -math.inf, math.inf, 0)
    middle = math.fsum(values) / n
    if n == 1:
        return Interval(middle, middle, middle, 1)
    spread = math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1))
    half = Z * spread / math.sqrt(n)
    return Interval(middle, middle - half, middle + half, n)
