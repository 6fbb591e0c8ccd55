"""Personal data in answers, replaced while they stream.

A value may be cut between two pieces, so the end of what came is kept back until it cannot belong
to one any more: a stream runs some twenty tokens late. Within an answer one value gets one
placeholder, `<EMAIL_1>`. Log-probabilities would tell the tokens, so they are refused beforehand.
"""

from __future__ import annotations

from typing import Final

from afina.data.personal.detect import find_personal, kinds_named
from afina.data.personal.redaction import Placeholders
from afina.data.personal.spans import PersonalKind
from afina.serving.protocol import Delta

KEPT_BACK: Final = 96
"""Characters: longer than any value that has spaces in it."""
SEEN_BEFORE: Final = 64
"""Characters in front, which name what follows: `my card is`."""
_LONGEST_WORD: Final = 2048


class Masker:
    """Masks the answers to one request, each choice by itself."""

    def __init__(self, kinds: frozenset[PersonalKind]) -> None:
        self._kinds = kinds
        self._choices: dict[int, _Choice] = {}
        self.places = 0

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Masker:
        """For the kinds of these names; all where none is named. Raises InvalidRequest."""
        return cls(kinds_named(names))

    def mask(self, delta: Delta) -> Delta:
        """The delta with what can be told by now; at a choice's end, all that is left of it."""
        choice = self._choices.setdefault(delta.choice, _Choice(Placeholders()))
        text = self._told(choice, delta.text, last=delta.finish is not None)
        return Delta(delta.choice, delta.ids, text, delta.logprobs, delta.finish)

    def _told(self, choice: _Choice, text: str, *, last: bool) -> str:
        choice.waiting += text
        if not last and len(choice.waiting) <= KEPT_BACK:
            return ""
        whole = choice.before + choice.waiting
        start = len(choice.before)
        spans = [s for s in find_personal(whole, self._kinds) if s.end > start]
        cut = len(whole) if last else _cut(whole, start)
        if not last:
            # A value that reaches past the cut may still grow: it waits as a whole.
            cut = min([cut, *(s.start for s in spans if s.end > cut)])
        if cut <= start:
            return ""
        pieces, done = [], start
        for span in spans:
            if span.end > cut:
                break
            self.places += 1
            value = whole[max(span.start, start) : span.end]
            pieces += [whole[done : max(span.start, start)], choice.names.of(span.kind, value)]
            done = span.end
        choice.before = whole[max(0, cut - SEEN_BEFORE) : cut]
        choice.waiting = whole[cut:]
        return "".join([*pieces, whole[done:cut]])


class _Choice:
    def __init__(self, names: Placeholders) -> None:
        self.names = names
        self.before = ""
        self.waiting = ""


def _cut(whole: str, start: int) -> int:
    """Where what can be told ends: before the kept end, at a space; a word that goes on and on is
    cut in its middle."""
    most = len(whole) - KEPT_BACK
    place = max(whole.rfind(" ", start, most), whole.rfind("\n", start, most)) + 1
    if place > start:
        return place
    return most if len(whole) - start > _LONGEST_WORD else start
