"""Everything personal or secret in a text, each place once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from afina.data.personal.contacts import find_contacts, may_spell_email
from afina.data.personal.papers import find_papers
from afina.data.personal.secrets import find_secrets
from afina.data.personal.spans import PersonalKind, Span, without_overlaps
from afina.errors import InvalidRequest

_DIGITS: Final = re.compile(r"\d(?:\d{5}|[\d .()/:-]{5,}\d)")
"""Without such a row of digits nothing has a number that names anyone."""
_SAYS_NOTHING: Final = frozenset(
    {"content", "text", "name", "description", "arguments", "prompt", "completion", "refusal"}
)
"""Keys of chats, which stand in front of anything."""
_SHORT: Final = 200
"""A value of a field; longer ones have words of their own."""
_INDEX: Final = re.compile(r"(?:\[\d+\])+$")
_INNER_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
ALL_KINDS: Final = frozenset(PersonalKind)


def kinds_named(names: Sequence[str] | None) -> frozenset[PersonalKind]:
    """Kinds by their names; all where none is named. Raises InvalidRequest listing them."""
    if not names:
        return ALL_KINDS
    known = {kind.value: kind for kind in PersonalKind}
    for name in names:
        if name.strip().lower() not in known:
            raise InvalidRequest(
                f"There is no kind of personal data called {name!r}.",
                param="kind",
                remedy=f"There are: {', '.join(PersonalKind)}.",
            )
    return frozenset(known[name.strip().lower()] for name in names)


def find_personal(text: str, kinds: frozenset[PersonalKind] = ALL_KINDS) -> list[Span]:
    """Spans of `text` that hold personal data or secrets, by place, without overlaps."""
    found = [span for span in _all(text) if span.kind in kinds]
    return without_overlaps(found) if len(found) > 1 else found


def find_in_field(text: str, where: str, kinds: frozenset[PersonalKind] = ALL_KINDS) -> list[Span]:
    """As `find_personal`, of what stands under the key at the end of `where`: `telefono` or
    `customerPhone` says what a number is that has no words around it."""
    found = find_personal(text, kinds)
    name = _INDEX.sub("", where.rpartition(".")[2])
    if not name or name in _SAYS_NOTHING or len(text) > _SHORT:
        return found
    front = f"{_INNER_CAPITAL.sub(' ', name).replace('_', ' ').lower()}: "
    named = [
        Span(span.start - len(front), span.end - len(front), span.kind, span.rule)
        for span in find_personal(front + text, kinds)
        if span.start >= len(front)
    ]
    return without_overlaps([*found, *named])


def _all(text: str) -> Iterator[Span]:
    yield from find_secrets(text)
    numbers = _DIGITS.search(text) is not None
    if numbers:
        yield from find_papers(text)
    if numbers or "@" in text or text.count(":") > 1 or may_spell_email(text):
        yield from find_contacts(text)
