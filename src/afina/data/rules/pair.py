"""Rules over prompt/completion rows, and the habits that models of raw text need."""

from __future__ import annotations

from afina.data.rows import shown, shown_field, type_name
from afina.data.rules.rule import Fault, Faults, PairFacts, Row

PAIR_KEYS = frozenset({"prompt", "completion"})
_MANY = 20
"""Habits of a file are spoken of only where there are so many rows."""
_LONG_START = 12
_LONG_COMPLETION_START = 5


def missing_completion(row: Row) -> Faults:
    if "completion" not in row:
        yield Fault("is missing key 'completion'.", field="completion")


def missing_prompt(row: Row) -> Faults:
    if "prompt" not in row:
        yield Fault("is missing key 'prompt'.", field="prompt")


def pair_not_text(row: Row) -> Faults:
    for key in ("prompt", "completion"):
        if key in row and not isinstance(row[key], str):
            yield Fault(f'"{key}" is {type_name(row[key])}, not a string.', field=key)


def empty_completion(row: Row) -> Faults:
    completion = row.get("completion")
    if isinstance(completion, str) and not completion.strip():
        yield Fault('"completion" is empty.', field="completion")


def unknown_pair_key(row: Row) -> Faults:
    for key in row:
        if key not in PAIR_KEYS:
            yield Fault(f"contains an extra {shown(key)}.", field=shown_field(key))


def prompt_without_end(facts: PairFacts) -> Faults:
    if facts.rows >= _MANY and facts.prompts > facts.rows / 2 and not facts.prompt_end:
        yield Fault("The prompts do not end alike.", field="prompt")


def completion_without_end(facts: PairFacts) -> Faults:
    if facts.rows >= _MANY and not facts.completion_end:
        yield Fault("The completions do not end alike.", field="completion")


def completion_starts_bare(facts: PairFacts) -> Faults:
    if facts.bare and facts.bare < facts.rows:
        yield Fault(
            f"{facts.bare:,} of {facts.rows:,} completions do not begin with white space, the "
            "others do.",
            line=facts.first_bare,
            field="completion",
        )


def common_start(facts: PairFacts) -> Faults:
    if facts.rows < _MANY:
        return
    for key, length, least in (
        ("prompt", facts.prompt_start, _LONG_START),
        ("completion", facts.completion_start, _LONG_COMPLETION_START),
    ):
        if length >= least:
            yield Fault(f"Every {key} begins with the same {length} characters.", field=key)


def upper_case(facts: PairFacts) -> Faults:
    if facts.upper_case:
        yield Fault(
            f"{facts.upper_case:,} rows are mostly in capitals.", line=facts.first_upper_case
        )


def very_long_pair(facts: PairFacts) -> Faults:
    if facts.very_long:
        yield Fault(
            f"{facts.very_long:,} rows have more than 10,000 characters.",
            line=facts.first_very_long,
        )
