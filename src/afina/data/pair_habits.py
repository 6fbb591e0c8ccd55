"""What all prompts and all completions of a file have in common, in one pass of flat memory."""

from __future__ import annotations

from os.path import commonprefix
from typing import Final

import msgspec

from afina.data.rules.rule import PairFacts

_LONG: Final = 10_000
_LETTERS_LOOKED_AT: Final = 2000
_SHOUTED: Final = 12
"""Fewer capitals may be an abbreviation."""


class PairHabits(msgspec.Struct):
    """Grows row by row, or by the habits of rows behind; `facts` may be asked at any time."""

    rows: int = 0
    prompts: int = 0
    starts: dict[str, str] = msgspec.field(default_factory=dict)
    """What all texts seen begin with, by key; `ends` hold what they end with, from its end."""
    ends: dict[str, str] = msgspec.field(default_factory=dict)
    found: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """How often, and the first line."""

    def add(self, line: int, prompt: str, completion: str) -> None:
        """The next row, which has no errors."""
        self.rows += 1
        self.prompts += bool(prompt)
        for key, text in (("prompt", prompt), ("completion", completion)):
            self.starts[key] = _common(self.starts.get(key), text)
            self.ends[key] = _common(self.ends.get(key), text[::-1])
        if not completion[:1].isspace():
            self._note("bare", 1, line)
        if len(prompt) + len(completion) > _LONG:
            self._note("long", 1, line)
        if _is_upper(prompt) or _is_upper(completion):
            self._note("upper", 1, line)

    def add_habits(self, later: PairHabits) -> None:
        """Those of rows behind the ones that were seen so far."""
        self.rows += later.rows
        self.prompts += later.prompts
        for here, there in ((self.starts, later.starts), (self.ends, later.ends)):
            for key, text in there.items():
                here[key] = _common(here.get(key), text)
        for what, (count, line) in later.found.items():
            self._note(what, count, line)

    def facts(self) -> PairFacts:
        """What is known so far."""
        nothing = (0, None)
        bare, upper, long = (self.found.get(key, nothing) for key in ("bare", "upper", "long"))
        return PairFacts(
            rows=self.rows,
            prompts=self.prompts,
            prompt_end=self.ends.get("prompt", "")[::-1],
            completion_end=self.ends.get("completion", "")[::-1],
            prompt_start=len(self.starts.get("prompt", "")),
            completion_start=len(self.starts.get("completion", "").lstrip()),
            bare=bare[0],
            first_bare=bare[1],
            upper_case=upper[0],
            first_upper_case=upper[1],
            very_long=long[0],
            first_very_long=long[1],
        )

    def _note(self, what: str, count: int, line: int) -> None:
        known, first = self.found.get(what, (0, line))
        self.found[what] = (known + count, first)


def _common(known: str | None, text: str) -> str:
    return text if known is None else commonprefix((known, text))  # noqa: RUF071


def _is_upper(text: str) -> bool:
    """The old tool's measure: more than two capitals for one small letter."""
    part = text[:_LETTERS_LOOKED_AT]
    upper = sum(map(str.isupper, part))
    return upper >= _SHOUTED and upper * 2 > sum(map(str.islower, part))
