"""A finding: a rule, a place and a remedy. It never holds the text of a row."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """An error stops a job; a warning is said and counted."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One fault in one place. Lines, examples and messages count from 1."""

    rule: str
    """A stable code such as `empty-content`."""
    severity: Severity
    message: str
    remedy: str
    file: str
    line: int | None = None
    """Line of the file; None where the finding is about the whole file."""
    message_number: int | None = None
    field: str | None = None
    other_line: int | None = None
    """The line that this one is compared with: of the same file, or of the training file."""

    def one_line(self) -> str:
        """`questions.jsonl:17 message 2 [empty-content] …: remedy`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        if self.message_number is not None:
            place += f" message {self.message_number}"
        return f"{place} [{self.rule}] {self.message} {self.remedy}"
