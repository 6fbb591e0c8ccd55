"""One pass of the rules over the lines of a file. `afina.data.check` is the way in.

Lines come in their order. Rows without errors are collected and rendered many at a time; findings
over them and over the whole file are added later, and sorted by line at the end.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from afina.data.kinds import RowKind, kind_of_file
from afina.data.limits import CheckLimits
from afina.data.lines import SourceLine
from afina.data.pair_habits import PairHabits
from afina.data.rendering import Written, forged_messages, write_rows, writes_names
from afina.data.rows import quick_value, slow_value
from afina.data.rules import registry
from afina.data.rules.plain import is_plainly_good
from afina.data.rules.preference import messages_of_preference
from afina.data.rules.rule import Fault, FileFacts, LineFacts, RenderedFacts, Rule, Unused
from afina.domain.findings import Finding, Severity
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer

_BATCH_ROWS = 512
_BATCH_BYTES = 4 << 20


class Inspection:
    """What is known of a file while it is read."""

    def __init__(self, name: str, limits: CheckLimits, renderer: Renderer | None) -> None:
        self.name = name
        self.limits = limits
        self.rows_total = 0
        self.blank_lines = 0
        self.first_bad_example: int | None = None
        self.bad_lines: array[int] = array("q")
        self.counts: Counter[str] = Counter()
        self.errors = 0
        self.warnings = 0
        self.tokens = 0
        self.learned_tokens = 0
        self.longest_row = 0
        self.training_rows = 0
        self.kind: RowKind | None = None
        """None until the first row was read."""
        self._habits = PairHabits()
        self._parallel = Unused()
        self._names = Unused()
        self._names_count = renderer is None or writes_names(renderer)
        self._first_blank: int | None = None
        self._last_line = 0
        self._findings: list[Finding] = []
        self._lines: array[int] = array("q")
        self._hashes: array[int] = array("Q")
        self._renderer = renderer
        self._waiting: list[tuple[int, int, dict[str, Any]]] = []
        self._waiting_bytes = 0

    def add(self, line: SourceLine) -> None:
        """Looks at the next line."""
        self._last_line = line.number
        if line.is_blank:
            self.blank_lines += 1
            self._first_blank = self._first_blank or line.number
            return
        self.rows_total += 1
        if not self._look(line):
            self._bad(line.number, self.rows_total)
        elif self._renderer is not None:
            self._waiting_bytes += line.size
            if len(self._waiting) >= _BATCH_ROWS or self._waiting_bytes >= _BATCH_BYTES:
                self._render()

    def finish(self, bytes_total: int) -> None:
        """Looks at what is left and at the file as a whole."""
        self._render()
        self.bad_lines = array("q", sorted(self.bad_lines))
        facts = FileFacts(
            bytes_total=bytes_total,
            rows=self.rows_total,
            usable=self.rows_total - len(self.bad_lines),
            blank_lines=self.blank_lines,
            first_blank=self._first_blank,
            last_line=self._last_line if self.is_hopeless else None,
            min_rows=self.limits.min_rows,
            duplicates=self._duplicates(),
            max_rows=self.limits.max_rows if self.kind is RowKind.RFT else None,
            parallel_flags=self._parallel,
            names=self._names,
        )
        for rule in registry.FILE_RULES:
            for fault in rule.find(facts):
                self._note(rule, fault, fault.line)
        if self.kind is RowKind.PROMPT_COMPLETION:
            habits = self._habits.facts()
            for habit in registry.PAIR_FILE_RULES:
                for fault in habit.find(habits):
                    self._note(habit, fault, fault.line)

    @property
    def is_hopeless(self) -> bool:
        """Whether so many rows are bad that looking further tells nothing new."""
        return len(self.bad_lines) >= self.limits.max_bad_rows

    def findings(self) -> tuple[Finding, ...]:
        """What is listed: errors before warnings where not all fit, and then by line; findings
        about the whole file come last."""
        last = self._last_line + 1
        ordered = sorted(self._findings, key=lambda f: (f.line or last, f.message_number or 0))
        ordered.sort(key=lambda f: f.severity is not Severity.ERROR)
        kept = ordered[: self.limits.max_findings]
        return tuple(sorted(kept, key=lambda f: (f.line or last, f.message_number or 0)))

    def _look(self, line: SourceLine) -> bool:
        """Runs the rules over one line; whether the row is free of errors so far."""
        raw = line.raw
        plain = self.kind is RowKind.CHAT and raw is not None and is_plainly_good(raw)
        if not plain:
            before = self.errors
            row = self._value(line)
            if row is msgspec.UNSET:
                return False
            if self.kind is None:
                self.kind = kind_of_file(row, self.limits.kinds)
            if self._row_rules(row, line.number):
                self._message_rules(row, line.number)
            if self.errors > before:
                return False
            self._note_unused(row, line.number)
        elif self._renderer is not None:
            row = msgspec.json.decode(raw or b"")
        digest = hashlib.blake2b(raw or b"", digest_size=8).digest()
        self._hashes.frombytes(digest)
        self._lines.append(line.number)
        if self._renderer is not None:
            self._waiting.append((line.number, self.rows_total, row))
        return True

    def _bad(self, line: int, example: int) -> None:
        self.bad_lines.append(line)
        self.first_bad_example = min(example, self.first_bad_example or example)

    def _value(self, line: SourceLine) -> Any:
        """The line's value, or UNSET with a finding that says why there is none."""
        if line.raw is not None:
            value = quick_value(line.raw, self.limits.max_depth)
            if value is not msgspec.UNSET:
                return value
        facts = LineFacts(
            raw=line.raw,
            size=line.size,
            text=_text(line.raw),
            max_line_bytes=self.limits.max_line_bytes,
            max_depth=self.limits.max_depth,
        )
        for rule in registry.LINE_RULES:
            faults = list(rule.find(facts))
            if faults:
                self._note_all(rule, faults, line.number)
                return msgspec.UNSET
        assert line.raw is not None, "a line over the cap is found by its rule"
        return slow_value(line.raw)

    def _row_rules(self, row: Any, line: int) -> bool:
        """Whether messages can be looked at."""
        assert self.kind is not None, "the first row decides the kind"
        for rule in registry.ROW_RULES_OF_KIND[self.kind]:
            faults = list(rule.find(row))
            if faults:
                self._note_all(rule, faults, line)
                if rule.stops:
                    return False
        return True

    def _message_rules(self, row: dict[str, Any], line: int) -> None:
        for number, prefix, message in _messages(self.kind, row):
            for rule in registry.MESSAGE_RULES:
                faults = list(rule.find(message))
                for fault in faults:
                    field = f"{prefix}{fault.field}" if fault.field else None
                    self._note(rule, replace(fault, field=field), line, number)
                if faults and rule.stops:
                    break

    def _note_unused(self, row: dict[str, Any], line: int) -> None:
        """Counts what is allowed in a row and may have no effect."""
        if self.kind is RowKind.PROMPT_COMPLETION:
            self._habits.add(line, row["prompt"], row["completion"])
            return
        chat = row["input"] if self.kind is RowKind.PREFERENCE else row
        if "parallel_tool_calls" in chat:
            self._parallel = _one_more(self._parallel, line)
        if not self._names_count:
            for _, _, message in _messages(self.kind, row):
                if message.get("name") is not None and message.get("role") != "function":
                    self._names = _one_more(self._names, line)

    def _render(self) -> None:
        """Renders the rows that wait, and runs the rules over what comes out."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._renderer is None or not waiting:
            return
        limit = min(
            self.limits.max_row_tokens or self._renderer.context_tokens,
            self._renderer.context_tokens,
        )
        assert self.kind is not None, "rows wait only after the first was read"
        results = write_rows(self.kind, [row for _, _, row in waiting], self._renderer)
        for (line, example, row), result in zip(waiting, results, strict=True):
            forged = forged_messages(self.kind, row, self._renderer)
            facts = _rendered_facts(self.kind, result, limit, forged)
            before = self.errors
            for rule in registry.RENDERED_RULES:
                self._note_all(rule, rule.find(facts), line)
            if self.errors > before or isinstance(result, InvalidRequest):
                self._bad(line, example)
                continue
            self.tokens += sum(result.lengths)
            self.learned_tokens += sum(result.learned)
            self.longest_row = max(self.longest_row, *result.lengths)
            self.training_rows += len(result.lengths)

    def _note_all(self, rule: Rule, faults: Iterable[Fault], line: int) -> None:
        for fault in faults:
            self._note(rule, fault, line)

    def _note(
        self, rule: Rule, fault: Fault, line: int | None, message_number: int | None = None
    ) -> None:
        self.counts[rule.code] += 1
        if rule.severity is Severity.ERROR:
            self.errors += 1
        else:
            self.warnings += 1
        if self.counts[rule.code] <= self.limits.max_findings:
            self._findings.append(
                Finding(
                    rule=rule.code,
                    severity=rule.severity,
                    message=fault.message,
                    remedy=rule.remedy,
                    file=self.name,
                    line=line,
                    message_number=fault.message_number or message_number,
                    field=fault.field,
                )
            )

    def _duplicates(self) -> Iterator[tuple[int, int]]:
        """Lines that are the same as an earlier one, and the first of that kind, by line."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        lines = np.frombuffer(self._lines, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = hashes[order][1:] != hashes[order][:-1]
        firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
        later = lines[order[~is_first]]
        earlier = lines[order[firsts[~is_first]]]
        for place in np.argsort(later):
            yield int(later[place]), int(earlier[place])


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _messages(
    kind: RowKind | None, row: dict[str, Any]
) -> Iterator[tuple[int | None, str, dict[str, Any]]]:
    """Number, the field's prefix, and each message of a row that is an object."""
    if kind is RowKind.PREFERENCE:
        yield from messages_of_preference(row)
    elif kind is not RowKind.PROMPT_COMPLETION:
        for number, message in enumerate(row["messages"], 1):
            if isinstance(message, dict):
                yield number, "", message


def _one_more(unused: Unused, line: int) -> Unused:
    return Unused(unused.count + 1, unused.first_line or line)


def _rendered_facts(
    kind: RowKind, result: Written | InvalidRequest, limit: int, forged: list[int]
) -> RenderedFacts:
    if isinstance(result, InvalidRequest):
        return RenderedFacts((), 0, limit, result.message, ())
    asked = kind is RowKind.RFT
    return RenderedFacts(
        lengths=result.lengths,
        learned_tokens=1 if asked else min(result.learned, default=0),
        max_tokens=limit,
        refusal=None,
        forged=forged,
    )
