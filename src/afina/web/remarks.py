"""What is said of a file beside its rows, in the reader's language: by name, never by its words.

The texts are in `strings.toml`, section `note`. What the page shows in another place is not said
twice, and reasons that have no words here are shown as they are, as English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from afina.data.remarks import Remark
from afina.language import numbers
from afina.language.sentences import Sentence
from afina.language.strings import Texts

ELSEWHERE: Final = frozenset(
    {
        *("taken_as", "says_who", "read_as"),  # the columns chosen
        *("guessed_encoding", "no_rows"),  # a choice, and a sentence, of their own
        *("role", "key"),  # findings of the check
        *("table_in_text", "index_not_used"),  # of what the page does not offer
    }
)
"""Remarks that the page has another place for."""
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")


def remarks_in(texts: Texts, remarks: Iterable[Remark | str]) -> list[Sentence]:
    """The sentences that are to be shown; of texts without a name nobody knows the language."""
    named = [one for one in remarks if isinstance(one, Remark) and one.name not in ELSEWHERE]
    return [_sentence(texts, one) for one in named]


def reason_in(texts: Texts, reason: str) -> Sentence:
    """Why records of a file are no rows."""
    key = f"reason.{_NO_WORD.sub('_', reason.lower()).strip('_')}"
    return Sentence(texts(key), texts.language) if texts.has(key) else Sentence(reason, "en")


def _sentence(texts: Texts, found: Remark) -> Sentence:
    key = f"note.{found.name}"
    if not texts.has(key):
        return Sentence(found.text, "en")
    shown = {
        name: numbers.number(texts.language, value) if isinstance(value, int) else value
        for name, value in found.values.items()
    }
    if "reason" in shown:
        shown["reason"] = reason_in(texts, shown["reason"]).text
    at = texts("note.at", line=shown["line"]) if "line" in shown else ""
    return Sentence(texts(key, at=at, **shown), texts.language)
