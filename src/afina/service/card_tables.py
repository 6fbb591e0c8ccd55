"""Pieces of HTML that a card's page is made of: facts, tables, numbers as the reader's language
writes them. Everything that is put in is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from afina.language import numbers
from afina.language.strings import Texts

_LEAST: Final = 5e-4
"""Smaller numbers are written by their power of ten."""


def section(title: str, body: str) -> str:
    """A part of the page; nothing where it has no body."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def plain(text: str) -> str:
    """A sentence aside; nothing where it is empty."""
    return f'<p class="plain">{escape(text)}</p>' if text else ""


def facts(found: Iterable[tuple[str, str | None]]) -> str:
    """Names and values; what has no value is left out."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in found
        if value is not None
    )
    return f"<table>{rows}</table>" if rows else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with names of columns; the first of each row names it. On a telephone a cell says its
    column."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = ""
    for name, *cells in rows:
        shown = "".join(
            f'<td data-label="{escape(head)}">{escape(cell)}</td>'
            for head, cell in zip(heads[1:], cells, strict=True)
        )
        body += f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    return f'<table class="wide"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def mark(word: str, kind: str) -> str:
    """A word in a frame: `good`, `bad` or `plain`."""
    return f'<span class="tag {kind}">{escape(word)}</span>'


def day(seconds: float) -> str:
    """A moment, the same in every language."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def share(texts: Texts, value: float) -> str:
    """A share in percent."""
    return f"{numbers.number(texts.language, 100 * value)}\N{NO-BREAK SPACE}%"


def measured(texts: Texts, value: float) -> str:
    """A number of which the first digits count."""
    if value and abs(value) < _LEAST:
        return numbers.tiny(texts.language, value, 2)
    written = f"{value:.4f}".rstrip("0").rstrip(".")
    return numbers.number(texts.language, value, len(written.partition(".")[2]))


def counted(texts: Texts, found: Iterable[tuple[str, int]], section_of_names: str = "mark") -> str:
    """Kinds of marks with how often each was found, most often first."""
    said = []
    for kind, count in sorted(found, key=lambda one: (-one[1], one[0])):
        key = f"{section_of_names}.{kind.replace('/', '_').replace('-', '_')}"
        name = texts(key) if texts.has(key) else kind.upper()
        said.append(f"{numbers.number(texts.language, count)} {name}")
    return ", ".join(said)
