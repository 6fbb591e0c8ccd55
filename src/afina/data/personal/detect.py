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
ALL_KINDS: Final = frozenset(PersonalKind)


def kinds_named(names: Sequence[str] | None) -> frozenset[PersonalKind]:
    """Kinds by their names; all where none is named. Raises InvalidRequest listing them."""
    if not names:
        return ALL_KINDS
    try:
        return frozenset(PersonalKind(name.strip().lower()) for name in names)
    except ValueError as error:
        raise InvalidRequest(
            f"There is no kind of personal data of this name: {error}.",
            param="kind",
            remedy=f"There are: {', '.join(PersonalKind)}.",
        ) from None


def find_personal(text: str, kinds: frozenset[PersonalKind] = ALL_KINDS) -> list[Span]:
    """Spans of `text` that hold personal data or secrets, by place, without overlaps."""
    found = [span for span in _all(text) if span.kind in kinds]
    return without_overlaps(found) if len(found) > 1 else found


def _all(text: str) -> Iterator[Span]:
    yield from find_secrets(text)
    numbers = _DIGITS.search(text) is not None
    if numbers:
        yield from find_papers(text)
    if numbers or "@" in text or text.count(":") > 1 or may_spell_email(text):
        yield from find_contacts(text)
