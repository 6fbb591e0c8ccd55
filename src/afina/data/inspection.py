"""One pass of the rules over the lines of a file. `afina.data.check` is the way in.

Lines come in their order. Rows without errors are collected and rendered many at a time; findings
over them and over the whole file are added later, and sorted by line at the end.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from afina.data.limits import CheckLimits
from afina.data.lines import SourceLine
from afina.data.rows import chat_of, quick_value, slow_value
from afina.data.rules import registry
from afina.data.rules.plain import is_plainly_good
from afina.data.rules.rule import Fault, FileFacts, LineFacts, RenderedFacts, Rule
from afina.domain.findings import Finding, Severity
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer, TokenRow

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
        )
        for rule in registry.FILE_RULES:
            for fault in rule.find(facts):
                self._note(rule, fault, fault.line)

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
        row = self._value(line)
        if row is msgspec.UNSET:
            return False
        before = self.errors
        if not is_plainly_good(row) and self._row_rules(row, line.number):
            self._message_rules(row, line.number)
        if self.errors > before:
            return False
        digest = hashlib.blake2b(line.raw or b"", digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "little"))
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
        for rule in registry.ROW_RULES:
            faults = list(rule.find(row))
            if faults:
                self._note_all(rule, faults, line)
                if rule.stops:
                    return False
        return True

    def _message_rules(self, row: dict[str, Any], line: int) -> None:
        for number, message in enumerate(row["messages"], 1):
            if not isinstance(message, dict):
                continue
            for rule in registry.MESSAGE_RULES:
                faults = list(rule.find(message))
                for fault in faults:
                    self._note(rule, fault, line, number)
                if faults and rule.stops:
                    break

    def _render(self) -> None:
        """Renders the rows that wait, and runs the rules over what comes out."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._renderer is None or not waiting:
            return
        limit = min(
            self.limits.max_row_tokens or self._renderer.context_tokens,
            self._renderer.context_tokens,
        )
        results = self._renderer.training_rows(chat_of(row) for _, _, row in waiting)
        for (line, example, row), result in zip(waiting, results, strict=True):
            facts = _rendered_facts(row, result, limit, self._renderer)
            before = self.errors
            for rule in registry.RENDERED_RULES:
                self._note_all(rule, rule.find(facts), line)
            if self.errors > before:
                self._bad(line, example)
                continue
            self.tokens += sum(facts.lengths)
            self.learned_tokens += facts.learned_tokens
            self.longest_row = max(self.longest_row, *facts.lengths)
            self.training_rows += len(facts.lengths)

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


def _rendered_facts(
    row: dict[str, Any],
    result: tuple[TokenRow, ...] | InvalidRequest,
    limit: int,
    renderer: Renderer,
) -> RenderedFacts:
    if isinstance(result, InvalidRequest):
        return RenderedFacts((), 0, limit, result.message, ())
    messages, _ = chat_of(row)
    forged = [
        number
        for number, message in enumerate(messages, 1)
        if isinstance(message.get("content"), str)
        and renderer.tokenizer.has_control(message["content"])
    ]
    return RenderedFacts(
        lengths=[len(rendered.ids) for rendered in result],
        learned_tokens=sum(int(rendered.learned.sum()) for rendered in result),
        max_tokens=limit,
        refusal=None,
        forged=forged,
    )
