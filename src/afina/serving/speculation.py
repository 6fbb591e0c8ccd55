"""Several tokens a step, exactly: drafts are checked by the network, and only what it says stands.

A row of the step computes the last token and a draft behind it. At each place a token is chosen as
ever (by the greatest score, or with noise drawn from seed, choice and position); the draft's tokens
stand as far as they are the chosen ones, and the first that differs is replaced by the chosen one.
So an answer is what it would be without drafts, sampled ones included, and nothing but the number
of steps changes. Where a tune's drafts do not stand, it is left alone for a while: a check costs
more than a plain step. Plain Python; no torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from afina.serving.drafts import LONGEST, DraftIndex
from afina.serving.scheduler import Scheduler
from afina.serving.sequences import Plan
from afina.serving.sequences import Sequence as Answering

_SHORT: Final = 3
"""Tokens of a short draft: with the token before it four rows, which cost as much as one."""
_MOST_ROWS: Final = 16
"""Rows of drafts and last tokens a step; more cost more than they save."""
_CONTEXT: Final = 16
_MEMORY: Final = 0.8
"""What an earlier check still weighs after one more."""
_WORTH: Final = 0.5
"""Tokens that must stand, a check, for drafts to go on."""
_WORTH_LONG: Final = 2.0
"""The same for long drafts."""
_BEGIN: Final = 0.75
"""Where a tune begins: with short drafts, so that bad ones cost little before they are known."""
_REST: Final = 96
"""Tokens that a tune is left alone for where drafts did not stand; doubled each time."""
_LONGEST_REST: Final = 6144


@dataclass
class _Record:
    """How a tune's drafts do."""

    index: DraftIndex
    standing: float = _BEGIN
    """Tokens that stood a check, lately."""
    rest: int = 0
    """Tokens to go before the next try."""
    next_rest: int = _REST

    def length(self) -> int:
        """Tokens of its next draft."""
        if self.rest > 0:
            self.rest -= 1
            return 0
        return LONGEST if self.standing >= _WORTH_LONG else _SHORT

    def learn(self, stood: int) -> None:
        """A check was made."""
        self.standing = self.standing * _MEMORY + stood * (1 - _MEMORY)
        if self.standing < _WORTH:
            self.rest, self.standing = self.next_rest, _BEGIN
            self.next_rest = min(self.next_rest * 2, _LONGEST_REST)
        elif self.standing >= 1.0:
            self.next_rest = _REST


@dataclass(frozen=True)
class Checked:
    """What became of one draft."""

    tune: str
    drafted: int
    stood: int


class Speculation:
    """The indexes of one lane's tunes, and what comes of their drafts."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._checks: dict[Answering, str] = {}
        """Whose drafts the step checks, with their tunes."""

    def know(self, tune: str, index: DraftIndex) -> None:
        """From now on the tune's answers are drafted."""
        self._records[tune] = _Record(index)

    def forget(self, tune: str) -> None:
        """Drops a tune's index."""
        self._records.pop(tune, None)

    def keep_only(self, tunes: Iterable[str]) -> None:
        """Drops the indexes of all tunes but these."""
        for tune in set(self._records) - set(tunes):
            self.forget(tune)

    def propose(
        self, plan: Plan, scheduler: Scheduler, tune_of: Callable[[Answering], str | None]
    ) -> None:
        """Turns answers that decode in `plan` into checks of drafts, where drafts do well and the
        step has room. `tune_of` names the tune of an answer that may be drafted."""
        self._checks = {}
        if not self._records:
            return
        room = _MOST_ROWS - len(plan.decodes)
        for sequence in list(plan.decodes):
            tune = tune_of(sequence)
            record = None if tune is None else self._records.get(tune)
            if tune is None or record is None or room <= 0:
                continue
            longest = min(record.length(), room, sequence.max_tokens - len(sequence.tokens) - 1)
            if longest <= 0:
                continue
            known = len(sequence.prompt.ids) + len(sequence.tokens)
            context = sequence.ids(max(0, known - _CONTEXT), known)
            draft = record.index.draft(context, longest)
            if draft and scheduler.check(plan, sequence, draft):
                self._checks[sequence] = tune
                room -= len(draft)

    def judge(
        self, sequences: Sequence[Answering], tokens: Sequence[int]
    ) -> tuple[list[bool], list[Checked]]:
        """Which rows of a step are part of their answers, given the token chosen at each, and what
        became of the drafts, which end here. An answer's rows stand one behind the other: the first
        is part of it, and so is each whose draft's token was chosen by the row before it."""
        standing: list[bool] = []
        stood: dict[Answering, int] = {}
        before: Answering | None = None
        for row, sequence in enumerate(sequences):
            if sequence is before and sequence in self._checks:
                place = stood[sequence]
                agrees = standing[-1] and tokens[row - 1] == sequence.draft[place]
                standing.append(agrees)
                stood[sequence] += agrees
            else:
                standing.append(True)
                stood[sequence] = 0
            before = sequence
        checked = []
        for sequence, tune in self._checks.items():
            checked.append(Checked(tune, len(sequence.draft), stood[sequence]))
            sequence.draft = []
            if tune in self._records:
                self._records[tune].learn(stood[sequence])
        self._checks = {}
        return standing, checked
