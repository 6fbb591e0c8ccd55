"""Numbers, money, sizes and spans of time as the reader's language writes them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from afina.domain.prices import dollars
from afina.language.strings import Texts

_SIGNS: Final = {"en": (",", "."), "es": (".", ","), "pt": (".", ",")}
"""What separates thousands, and what stands before decimals."""
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"


def number(language: str, value: float, decimals: int = 0) -> str:
    """`12,345.6` in English, `12.345,6` in Spanish and Portuguese."""
    thousands, point = _SIGNS[language]
    text = f"{value:,.{decimals}f}"
    return text.translate({ord(","): thousands, ord("."): point})


def tiny(language: str, value: float, digits: int = 3) -> str:
    """A small number by its power of ten: `1.15 × 10⁻³`."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = str(int(exponent)).translate(_RAISED)
    return f"{number(language, float(mantissa), digits - 1)}{_THIN}×{_THIN}10{power}"


def money(language: str, pico: int) -> str:
    """Dollars with two decimals, or as many as show a small amount."""
    amount = dollars(pico)
    if amount == 0 or abs(amount) >= Decimal("0.01"):
        exact = amount.quantize(Decimal("0.01"), ROUND_HALF_UP)
        return f"${number(language, float(exact), 2)}"
    text = number(language, float(amount), 6)
    return f"${text.rstrip('0')}"


def size(language: str, count: int) -> str:
    """Bytes in the largest unit that gives at least one."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{number(language, amount, 0 if unit == 'B' or amount >= 100 else 1)}{_THIN}{unit}"


def span(texts: Texts, seconds: float) -> str:
    """A span of time in its two largest units: `1 min 20 s`."""
    whole = max(0, round(seconds))
    if whole < 1:
        return texts("unit.under_second")
    parts: list[tuple[int, str]] = []
    for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append((count, texts(f"unit.{name}")))
        if len(parts) == 2:
            break
    return " ".join(f"{count}{_THIN}{unit}" for count, unit in parts if count)
