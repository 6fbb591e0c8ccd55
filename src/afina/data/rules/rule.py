"""What a rule is: a name, a severity, a sentence, a remedy, and one function that looks.

The function yields a Fault for each place where the rule is broken; it says nothing of what people
wrote there. Kinds of rules differ in what they look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afina.domain.findings import Severity

Message = Mapping[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """One broken place. `message` is a sentence without the place."""

    message: str
    message_number: int | None = None
    field: str | None = None
    line: int | None = None
    """For rules over the whole file alone."""
    remedy: str | None = None
    """Where this place needs another one than the rule's."""
    other_line: int | None = None
    """The line that this one is compared with: of the same file, or of the training file."""


Faults = Iterator[Fault]


@dataclass(frozen=True)
class LineFacts:
    """A line that may not be good JSON; `text` is None where it is not UTF-8 or too long."""

    raw: bytes | None
    size: int
    text: str | None
    max_line_bytes: int
    max_depth: int


@dataclass(frozen=True)
class RenderedFacts:
    """What the model's renderer made of a row."""

    lengths: Sequence[int]
    """Tokens of each training row that comes out; mostly one."""
    learned_tokens: int
    max_tokens: int
    refusal: str | None
    """Why the template cannot write the row."""
    forged: Sequence[int]
    """Numbers of messages whose text looks like a control token."""


@dataclass(frozen=True)
class PairFacts:
    """Habits of the prompts and completions of a file. Lengths are in characters."""

    rows: int = 0
    prompts: int = 0
    """Rows whose prompt is not empty."""
    prompt_end: str = ""
    """What all prompts end with, without letters and digits before it; empty where nothing is."""
    completion_end: str = ""
    prompt_start: int = 0
    completion_start: int = 0
    bare: int = 0
    """Completions that do not begin with white space."""
    first_bare: int | None = None
    upper_case: int = 0
    first_upper_case: int | None = None
    very_long: int = 0
    first_very_long: int | None = None


@dataclass(frozen=True)
class Unused:
    """What is in rows and has no effect: how often, and where first."""

    count: int = 0
    first_line: int | None = None


@dataclass(frozen=True)
class FileFacts:
    """The whole file, after the last line."""

    bytes_total: int
    rows: int
    usable: int
    blank_lines: int
    first_blank: int | None
    last_line: int | None
    """Where the check stopped, if it did before the end."""
    min_rows: int
    duplicates: Iterable[tuple[int, int]]
    """(line, the earlier line that is the same): those that are listed."""
    max_rows: int | None = None
    pairs: PairFacts = PairFacts()
    parallel_flags: Unused = Unused()
    names: Unused = Unused()
    """Names of speakers that the model's template does not write."""


@dataclass(frozen=True)
class Rule:
    """What every rule has."""

    code: str
    severity: Severity
    doc: str
    """One sentence: what is wrong and why it matters."""
    remedy: str


@dataclass(frozen=True)
class LineRule(Rule):
    """Looks at a line's bytes; the first that finds something is the last that runs."""

    find: Callable[[LineFacts], Faults]


@dataclass(frozen=True)
class RowRule(Rule):
    """Looks at a JSON value. With `stops`, a fault here makes looking further senseless."""

    find: Callable[[Any], Faults]
    stops: bool = False


@dataclass(frozen=True)
class MessageRule(Rule):
    """Looks at one message, which is an object. With `stops`, the message is looked at no more."""

    find: Callable[[Message], Faults]
    stops: bool = False


@dataclass(frozen=True)
class RenderedRule(Rule):
    """Looks at what the renderer made of a row without errors."""

    find: Callable[[RenderedFacts], Faults]


@dataclass(frozen=True)
class FileRule(Rule):
    """Looks at the file as a whole."""

    find: Callable[[FileFacts], Faults]


@dataclass(frozen=True)
class PairRule(Rule):
    """Looks at the habits of all prompts and completions of a file."""

    find: Callable[[PairFacts], Faults]
