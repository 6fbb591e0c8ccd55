"""How answers look on a terminal: JSON, tables, facts, and numbers with their units.

Tables are cut to fit a terminal and never cut when the output goes to a file or a pipe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_WIDE: Final = 10_000


def console(*, stderr: bool = False) -> Console:
    """A rich console; as wide as it needs to be where nobody looks at a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, soft_wrap=not stream.isatty(), highlight=False)


def print_json(value: object) -> None:
    """`value` as JSON, indented, on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; a name that starts with `>` heads a column of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, one a line, aligned."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {value}")


def tell(text: str) -> None:
    """A remark on standard error: seen by people, not by pipes."""
    print(text, file=sys.stderr, flush=True)


def agreed(question: str, yes: bool) -> bool:
    """Whether to go on: asked at a terminal, taken as yes in a script or with --yes."""
    import typer

    return yes or not sys.stdin.isatty() or typer.confirm(question)


def in_bytes(count: float) -> str:
    """`271 kB`, `1.4 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return (
                f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
            )
        count /= 1000
    return f"{count:.1f} TB"


def in_time(seconds: float) -> str:
    """`8 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def in_dollars(amount: Decimal | str | float) -> str:
    """`$0.00`, or as many decimals as a small amount needs."""
    value = Decimal(str(amount))
    if value == 0 or abs(value) >= Decimal("0.01"):
        return f"${value:,.2f}"
    return f"${value:.6f}"


def in_count(number: int | None) -> str:
    """`12,345`, or a dash."""
    return "–" if number is None else f"{number:,}"


def at(unix_s: float | None) -> str:
    """A moment in local time, `2026-11-22 14:05:09`, or a dash."""
    if unix_s is None:
        return "–"
    return f"{datetime.fromtimestamp(unix_s, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
