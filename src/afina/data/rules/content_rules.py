"""Rules over what many rows say together. All are warnings: what they find may be meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from afina.data.content.habits import HabitFacts
from afina.data.rules.rule import Fault, Faults, Rule
from afina.domain.findings import Severity

_WARNING: Final = Severity.WARNING
_SAME_OPENING: Final = 0.5
_SAME_LENGTH: Final = 0.5
_CUT_LENGTH: Final = 40
"""Characters; shorter answers are often equally long."""
_ONE_CLASS: Final = 0.9
_RARE_CLASS: Final = 5


_NEARLY: Final = (
    "Take it out of one of the files; a split keeps together what asks the same, and with `--by "
    "group` what is of one group, not what is nearly the same."
)


@dataclass(frozen=True)
class ContentFacts:
    """One file among those that were read; lines are its own."""

    near: Iterable[tuple[int, int]]
    """(line, an earlier line that says nearly the same)."""
    contradictions: Iterable[tuple[int, int]]
    """(line, an earlier line with the same context and another answer)."""
    leaks: Iterable[tuple[int, int, bool]]
    """(line, line of the training file, whether both say exactly the same)."""
    strangers: Iterable[tuple[int, str, str]]
    """(line, its language, that of most rows)."""
    mixed: Iterable[tuple[int, str, str]]
    """(line, the question's language, the answer's), where most rows answer in the question's."""
    secrets: Iterable[tuple[int, str]]
    """(line, kind)."""
    personal: Iterable[tuple[int, str]]
    """(line, kinds)."""
    habits: HabitFacts


@dataclass(frozen=True)
class ContentRule(Rule):
    """Looks at the rows of a file together."""

    find: Callable[[ContentFacts], Faults]


def near_duplicate(facts: ContentFacts) -> Faults:
    for line, earlier in facts.near:
        message = f"The row says nearly the same as line {earlier}."
        yield Fault(message, line=line, other_line=earlier)


def contradiction(facts: ContentFacts) -> Faults:
    for line, earlier in facts.contradictions:
        message = f"The row asks the same as line {earlier} and answers otherwise."
        yield Fault(message, line=line, other_line=earlier)


def leaked_row(facts: ContentFacts) -> Faults:
    for line, training, exact in facts.leaks:
        how = "exactly" if exact else "nearly"
        message = f"The row says {how} what line {training} of the training file says."
        yield Fault(message, line=line, other_line=training, remedy=None if exact else _NEARLY)


def other_language(facts: ContentFacts) -> Faults:
    for line, language, main in facts.strangers:
        yield Fault(f"The answer is in {language}, most others are in {main}.", line=line)


def answered_in_other_language(facts: ContentFacts) -> Faults:
    for line, asked, answered in facts.mixed:
        yield Fault(
            f"The question is in {asked} and the answer in {answered}; in most rows they are in "
            "the same language.",
            line=line,
        )


def secret_in_row(facts: ContentFacts) -> Faults:
    for line, kind in facts.secrets:
        yield Fault(f"The row holds what looks like a secret: {kind.replace('_', ' ')}.", line=line)


def personal_data(facts: ContentFacts) -> Faults:
    for line, kinds in facts.personal:
        yield Fault(f"The row holds personal data: {kinds}.", line=line)


def same_opening(facts: ContentFacts) -> Faults:
    habits = facts.habits
    if habits.longest_opening > 1 and habits.same_opening > habits.rows * _SAME_OPENING:
        yield Fault(
            f"{habits.same_opening:,} of {habits.rows:,} answers begin with the same "
            f"{habits.longest_opening} words."
        )


def same_length(facts: ContentFacts) -> Faults:
    habits = facts.habits
    if habits.length >= _CUT_LENGTH and habits.same_length > habits.rows * _SAME_LENGTH:
        yield Fault(
            f"{habits.same_length:,} of {habits.rows:,} answers have {habits.length:,} characters."
        )


def unbalanced_classes(facts: ContentFacts) -> Faults:
    habits = facts.habits
    if habits.classes > 1 and habits.largest > _ONE_CLASS:
        yield Fault(
            f"Of {habits.classes} different answers one stands in {habits.largest:.0%} of the rows."
        )
    elif habits.classes > 1 and habits.smallest < _RARE_CLASS:
        yield Fault(
            f"Of {habits.classes} different answers the rarest stands in {habits.smallest} rows."
        )


def only_one_answer(facts: ContentFacts) -> Faults:
    if facts.habits.classes == 1:
        yield Fault(f"All {facts.habits.rows:,} answers are the same.")


CONTENT_RULES: Final[Sequence[ContentRule]] = (
    ContentRule(
        "near-duplicate",
        _WARNING,
        "A row says nearly the same as an earlier one (at least 80 % of their text is shared), and "
        "what it teaches counts twice.",
        "Keep the better one, unless the small difference is the point.",
        near_duplicate,
    ),
    ContentRule(
        "contradiction",
        _WARNING,
        "Two rows ask exactly the same and are answered differently; the model learns to waver.",
        "Decide for one answer, unless variety is what you want.",
        contradiction,
    ),
    ContentRule(
        "leaked-row",
        _WARNING,
        "A validation row is in the training file too, so that the validation loss flatters.",
        "Take it out of one of the files; `afina data split` keeps copies together.",
        leaked_row,
    ),
    ContentRule(
        "other-language",
        _WARNING,
        "A few answers are in another language than all the others.",
        "Translate them, or drop them, unless they are meant.",
        other_language,
    ),
    ContentRule(
        "answered-in-other-language",
        _WARNING,
        "A few questions are answered in another language than they are asked in.",
        "Answer in the question's language, unless it is a translation.",
        answered_in_other_language,
    ),
    ContentRule(
        "secret-in-row",
        _WARNING,
        "A row holds a key, a token, a password or a URL with one; a tuned model may say it.",
        "Change the secret, and take it out with `afina data redact`.",
        secret_in_row,
    ),
    ContentRule(
        "personal-data",
        _WARNING,
        "A row holds personal data: an address, a telephone number, the number of a paper.",
        "Take it out with `afina data redact`, unless you may keep it and mean to.",
        personal_data,
    ),
    ContentRule(
        "same-opening",
        _WARNING,
        "Most answers begin with the same words, and the model will begin all of its answers so.",
        "Leave the opening out, unless you want it.",
        same_opening,
    ),
    ContentRule(
        "same-length",
        _WARNING,
        "Most answers have exactly the same length: they may have been cut.",
        "Look at how the file was made.",
        same_length,
    ),
    ContentRule(
        "unbalanced-classes",
        _WARNING,
        "Answers are a few classes, and one stands in nearly all rows or in nearly none.",
        "Add rows of the rare classes.",
        unbalanced_classes,
    ),
    ContentRule(
        "only-one-answer",
        _WARNING,
        "All rows have the same answer, so the question does not matter.",
        "Add rows with other answers.",
        only_one_answer,
    ),
)
