"""What all prompts and all completions of a file have in common, in one pass of flat memory."""

from __future__ import annotations

from os.path import commonprefix
from typing import Final

from afina.data.rules.rule import PairFacts

_LONG: Final = 10_000
_LETTERS_LOOKED_AT: Final = 2000
_SHOUTED: Final = 12
"""Fewer capitals may be an abbreviation."""


class PairHabits:
    """Grows row by row; `facts` may be asked at any time."""

    def __init__(self) -> None:
        self._rows = self._prompts = 0
        self._starts: dict[str, str | None] = {"prompt": None, "completion": None}
        self._ends: dict[str, str | None] = {"prompt": None, "completion": None}
        self._found: dict[str, list[int]] = {"bare": [], "upper": [], "long": []}

    def add(self, line: int, prompt: str, completion: str) -> None:
        """The next row, which has no errors."""
        self._rows += 1
        self._prompts += bool(prompt)
        for key, text in (("prompt", prompt), ("completion", completion)):
            self._starts[key] = _common(self._starts[key], text)
            self._ends[key] = _common(self._ends[key], text[::-1])
        self._note("bare", line, not completion[:1].isspace())
        self._note("long", line, len(prompt) + len(completion) > _LONG)
        self._note("upper", line, _is_upper(prompt) or _is_upper(completion))

    def facts(self) -> PairFacts:
        """What is known so far."""
        bare, upper, long = (self._found[key] for key in ("bare", "upper", "long"))
        return PairFacts(
            rows=self._rows,
            prompts=self._prompts,
            prompt_end=(self._ends["prompt"] or "")[::-1],
            completion_end=(self._ends["completion"] or "")[::-1],
            prompt_start=len(self._starts["prompt"] or ""),
            completion_start=len((self._starts["completion"] or "").lstrip()),
            bare=bare[0] if bare else 0,
            first_bare=bare[1] if bare else None,
            upper_case=upper[0] if upper else 0,
            first_upper_case=upper[1] if upper else None,
            very_long=long[0] if long else 0,
            first_very_long=long[1] if long else None,
        )

    def _note(self, what: str, line: int, holds: bool) -> None:
        if holds:
            found = self._found[what]
            if found:
                found[0] += 1
            else:
                found += [1, line]


def _common(known: str | None, text: str) -> str:
    return text if known is None else commonprefix((known, text))  # noqa: RUF071


def _is_upper(text: str) -> bool:
    """The old tool's measure: more than two capitals for one small letter."""
    part = text[:_LETTERS_LOOKED_AT]
    upper = sum(character.isupper() for character in part)
    return upper * 2 > sum(character.islower() for character in part) and upper >= _SHOUTED
