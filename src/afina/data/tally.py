"""What one part of a file says to the rules, and the sum over all parts.

Parts are added in their order, and the sum is what one pass over the whole file would have found:
findings by rule up to the limit, counts of all, the first places, a few bytes a row.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from afina.data.equal import equal_rows
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.pair_habits import PairHabits
from afina.data.rules import registry
from afina.data.rules.rule import Fault, FileFacts, Rule, Unused
from afina.domain.findings import Finding, Severity

NO_UNUSED: Final = Unused()
_DUPLICATE: Final = "duplicate-row"


class Tally(msgspec.Struct):
    """What was found in a part. Examples are numbered from 1 within it, lines as in the file."""

    rows: int = 0
    blank_lines: int = 0
    first_blank: int | None = None
    last_line: int = 0
    first_bad_example: int | None = None
    bad_lines: list[int] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """Findings by rule, in the order in which the rules first found something."""
    findings: list[Finding] = msgspec.field(default_factory=list)
    errors: int = 0
    warnings: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    longest_row: int = 0
    training_rows: int = 0
    hashes: bytes = b""
    """uint64 of each row without errors in itself, and int64, the line of each."""
    lines: bytes = b""
    pairs: PairHabits = msgspec.field(default_factory=PairHabits)
    parallel: Unused = NO_UNUSED
    names: Unused = NO_UNUSED


class Notes:
    """Findings as they come: those of each rule up to the limit, and counts of all."""

    def __init__(self, file: str, limits: CheckLimits) -> None:
        self._file = file
        self._most = limits.max_findings
        self.counts: Counter[str] = Counter()
        self.errors = 0
        self.warnings = 0
        self.findings: list[Finding] = []

    def note_all(self, rule: Rule, faults: Iterable[Fault], line: int) -> None:
        for fault in faults:
            self.note(rule, fault, line)

    def note(
        self, rule: Rule, fault: Fault, line: int | None, message_number: int | None = None
    ) -> None:
        self.count(rule, 1)
        if self.counts[rule.code] <= self._most:
            self.findings.append(
                Finding(
                    rule=rule.code,
                    severity=rule.severity,
                    message=fault.message,
                    remedy=fault.remedy or rule.remedy,
                    file=self._file,
                    line=line,
                    message_number=fault.message_number or message_number,
                    field=fault.field,
                    other_line=fault.other_line,
                )
            )

    def count(self, rule: Rule, times: int) -> None:
        """Findings that are not listed."""
        self.counts[rule.code] += times
        if rule.severity is Severity.ERROR:
            self.errors += times
        else:
            self.warnings += times

    def add(self, tally: Tally) -> None:
        """Those of a part that comes behind what is here."""
        room = {code: self._most - self.counts[code] for code in tally.counts}
        for finding in tally.findings:
            if room[finding.rule] > 0:
                room[finding.rule] -= 1
                self.findings.append(finding)
        self.counts.update(tally.counts)
        self.errors += tally.errors
        self.warnings += tally.warnings


class Sum:
    """The parts of a file that were added so far."""

    def __init__(self, name: str, limits: CheckLimits, kind: RowKind | None) -> None:
        self.limits = limits
        self.kind = kind
        self.notes = Notes(name, limits)
        self.rows = 0
        self.blank_lines = 0
        self.bad_lines: array[int] = array("q")
        self.first_bad_example: int | None = None
        self.tokens = self.learned_tokens = self.longest_row = self.training_rows = 0
        self._first_blank: int | None = None
        self._last_line = 0
        self._lines = bytearray()
        self._hashes = bytearray()
        self._pairs = PairHabits()
        self._parallel = self._names = NO_UNUSED

    @property
    def is_hopeless(self) -> bool:
        """Whether so many rows are bad that looking further tells nothing new."""
        return len(self.bad_lines) >= self.limits.max_bad_rows

    @property
    def bad_rows_left(self) -> int:
        """How many more bad rows there may be before the check stops."""
        return self.limits.max_bad_rows - len(self.bad_lines)

    def add(self, tally: Tally) -> None:
        """The next part."""
        if tally.first_bad_example is not None and self.first_bad_example is None:
            self.first_bad_example = self.rows + tally.first_bad_example
        self.rows += tally.rows
        self.blank_lines += tally.blank_lines
        self._first_blank = self._first_blank or tally.first_blank
        self._last_line = tally.last_line or self._last_line
        self.bad_lines.extend(tally.bad_lines)
        self.notes.add(tally)
        self.tokens += tally.tokens
        self.learned_tokens += tally.learned_tokens
        self.longest_row = max(self.longest_row, tally.longest_row)
        self.training_rows += tally.training_rows
        self._lines += tally.lines
        self._hashes += tally.hashes
        self._pairs.add_habits(tally.pairs)
        self._parallel = _both(self._parallel, tally.parallel)
        self._names = _both(self._names, tally.names)

    def finish(self, bytes_total: int) -> None:
        """Runs the rules over the file as a whole."""
        duplicates, duplicates_count = self._duplicates()
        facts = FileFacts(
            bytes_total=bytes_total,
            rows=self.rows,
            usable=self.rows - len(self.bad_lines),
            blank_lines=self.blank_lines,
            first_blank=self._first_blank,
            last_line=self._last_line if self.is_hopeless else None,
            min_rows=self.limits.min_rows,
            duplicates=duplicates,
            max_rows=self.limits.max_rows if self.kind is RowKind.RFT else None,
            parallel_flags=self._parallel,
            names=self._names,
        )
        for rule in registry.FILE_RULES:
            for fault in rule.find(facts):
                self.notes.note(rule, fault, fault.line)
            if rule.code == _DUPLICATE and duplicates_count > len(duplicates):
                self.notes.count(rule, duplicates_count - len(duplicates))
        if self.kind is RowKind.PROMPT_COMPLETION:
            habits = self._pairs.facts()
            for habit in registry.PAIR_FILE_RULES:
                for fault in habit.find(habits):
                    self.notes.note(habit, fault, fault.line)

    def findings(self) -> tuple[Finding, ...]:
        """What is listed, by line; findings about the whole file come last. Where not all fit, the
        first of each rule stays, then errors stay before warnings."""
        last = self._last_line + 1
        ordered = sorted(self.notes.findings, key=lambda f: (f.line or last, f.message_number or 0))
        firsts = {f.rule: id(f) for f in reversed(ordered)}

        def worth(found: Finding) -> tuple[bool, bool]:
            return id(found) != firsts[found.rule], found.severity is not Severity.ERROR

        kept = sorted(ordered, key=worth)[: self.limits.max_findings]
        return tuple(sorted(kept, key=lambda f: (f.line or last, f.message_number or 0)))

    def _duplicates(self) -> tuple[list[tuple[int, int]], int]:
        """The first (line, the earlier line that is the same), and how many there are in all."""
        lines = np.frombuffer(self._lines, dtype=np.int64)
        rows, firsts = equal_rows(np.frombuffer(self._hashes, dtype=np.uint64))
        some = slice(self.limits.max_findings)
        pairs = zip(lines[rows[some]].tolist(), lines[firsts[some]].tolist(), strict=True)
        return list(pairs), len(rows)


def _both(first: Unused, then: Unused) -> Unused:
    return Unused(first.count + then.count, first.first_line or then.first_line)
