"""The rules over one part of a file. `afina.data.check` is the way in, `afina.data.tally` adds up.

Rows without errors are collected and rendered many at a time; most lines of most files are plainly
good, and are seen to be so some hundred at a time.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.beside import Work
from afina.data.chunks import Chunk
from afina.data.kinds import RowKind, kind_of_file
from afina.data.limits import CheckLimits
from afina.data.lines import LineGroup, LineReader, SourceLine
from afina.data.rendering import Written, forged_messages, write_rows
from afina.data.rows import quick_value, slow_value
from afina.data.rules import registry
from afina.data.rules.plain import plain_rows
from afina.data.rules.preference import messages_of_preference
from afina.data.rules.rule import Fault, LineFacts, LineRule, RenderedFacts, Unused
from afina.data.tally import Notes, Tally
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer

_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_BATCH_ROWS: Final = 512
_BATCH_BYTES: Final = 4 << 20
_BLOCK_BYTES: Final = 1 << 16
_FEW_LINES: Final = 16
"""Where one line of a block is odd, so many of its neighbours are looked at one by one."""


class CheckSetup(msgspec.Struct, frozen=True):
    """What the rules need to know to look at a part."""

    path: str
    name: str
    limits: CheckLimits
    kind: RowKind | None
    """None where no line of the file can be read."""
    model: tuple[str, int | None] | None = None
    """The folder of the renderer, and the moment that its template is told."""


def begin_check(
    setup: CheckSetup, renderer: Renderer | None = None
) -> Callable[[Chunk, int | None], Tally]:
    """A function that looks at a part, and stops after so many bad rows if it is told to."""
    if renderer is None and setup.model is not None:
        renderer = Renderer.load(Path(setup.model[0]), setup.model[1])
    named = None if renderer is None else renderer.named_roles

    def look(chunk: Chunk, max_bad: int | None = None) -> Tally:
        inspection = Inspection(setup, renderer, named)
        lines = chunk.lines(Path(setup.path), setup.limits.max_line_bytes, _BLOCK_BYTES)
        return inspection.run(lines, max_bad or setup.limits.max_bad_rows)

    return look


def _begin(setup: CheckSetup) -> Callable[[Chunk], Tally]:
    look = begin_check(setup)
    return lambda chunk: look(chunk, None)


WORK: Final = Work(__name__, CheckSetup, Tally, _begin)


def kind_in(path: Path, limits: CheckLimits) -> RowKind | None:
    """The kind of a file's rows: that of the first line that can be read at all."""
    bad = 0
    for line in LineReader(path, limits.max_line_bytes, block_bytes=_BLOCK_BYTES):
        if line.is_blank:
            continue
        value, _ = line_value(line, limits)
        if value is not msgspec.UNSET:
            return kind_of_file(value, limits.kinds)
        bad += 1
        if bad >= limits.max_bad_rows:
            return None
    return None


def line_value(
    line: SourceLine, limits: CheckLimits
) -> tuple[Any, tuple[LineRule, list[Fault]] | None]:
    """The line's value, or UNSET with the rule that says why there is none."""
    if line.raw is not None:
        value = quick_value(line.raw, limits.max_depth)
        if value is not msgspec.UNSET:
            return value, None
    facts = LineFacts(
        raw=line.raw,
        size=line.size,
        text=_text(line.raw),
        max_line_bytes=limits.max_line_bytes,
        max_depth=limits.max_depth,
    )
    for rule in registry.LINE_RULES:
        faults = list(rule.find(facts))
        if faults:
            return msgspec.UNSET, (rule, faults)
    assert line.raw is not None, "a line over the cap is found by its rule"
    return slow_value(line.raw), None


class Inspection:
    """What is known of a part while it is read."""

    def __init__(
        self, setup: CheckSetup, renderer: Renderer | None, named_roles: Set[str] | None
    ) -> None:
        self._limits = setup.limits
        self._kind = setup.kind
        self._tally = Tally()
        self._notes = Notes(setup.name, setup.limits)
        self._named_roles = named_roles
        self._lines: array[int] = array("q")
        self._digests: list[bytes] = []
        self._renderer = renderer
        self._waiting: list[tuple[int, int, dict[str, Any]]] = []
        self._waiting_bytes = 0

    def run(self, lines: LineReader, max_bad: int) -> Tally:
        """Looks at all lines, or until `max_bad` of them have errors."""
        tally = self._tally
        for group in lines.groups():
            self._look_at_group(group, max_bad)
            if len(tally.bad_lines) >= max_bad:
                break
        self._render()
        tally.bad_lines.sort()
        tally.counts = dict(self._notes.counts)
        tally.findings = self._notes.findings
        tally.errors, tally.warnings = self._notes.errors, self._notes.warnings
        tally.hashes = b"".join(self._digests)
        tally.lines = self._lines.tobytes()
        return tally

    def _look_at_group(self, group: LineGroup, max_bad: int) -> None:
        if group.text is None:
            self._add(SourceLine(group.first, None, group.size))
            return
        lines = group.text.split(b"\n")
        if self._plain(group.first, group.text, lines):
            return
        for start in range(0, len(lines), _FEW_LINES):
            some = lines[start : start + _FEW_LINES]
            first = group.first + start
            if len(lines) > _FEW_LINES and self._plain(first, b"\n".join(some), some):
                continue
            for number, raw in enumerate(some, first):
                fits = len(raw) <= self._limits.max_line_bytes
                self._add(SourceLine(number, raw if fits else None, len(raw)))
                if len(self._tally.bad_lines) >= max_bad:
                    return

    def _plain(self, first: int, text: bytes, lines: Sequence[bytes]) -> bool:
        """Takes lines that are plainly good, all of them or none."""
        if self._kind is None or len(text) > self._limits.max_line_bytes:
            return False
        rows = plain_rows(text, lines, self._kind)
        if rows is None:
            return False
        if self._kind is RowKind.PROMPT_COMPLETION:
            for number, pair in enumerate(rows, first):
                self._tally.pairs.add(number, pair.prompt, pair.completion)
        self._keep(first, lines)
        self._tally.last_line = first + len(lines) - 1
        if self._renderer is None:
            self._tally.rows += len(lines)
            return True
        for number, (raw, row) in enumerate(
            zip(lines, _DECODER.decode_lines(text), strict=True), first
        ):
            self._tally.rows += 1
            self._wait(number, len(raw), row)
        return True

    def _keep(self, first: int, lines: Sequence[bytes]) -> None:
        blake2b = hashlib.blake2b
        self._digests += [blake2b(raw, digest_size=8).digest() for raw in lines]
        self._lines.extend(range(first, first + len(lines)))

    def _add(self, line: SourceLine) -> None:
        """Looks at the next line alone."""
        tally = self._tally
        tally.last_line = line.number
        if line.is_blank:
            tally.blank_lines += 1
            tally.first_blank = tally.first_blank or line.number
            return
        tally.rows += 1
        before = self._notes.errors
        row = self._value(line)
        if row is not msgspec.UNSET and self._row_rules(row, line.number):
            self._message_rules(row, line.number)
        if self._notes.errors > before:
            self._bad(line.number, tally.rows)
            return
        self._note_unused(row, line.number)
        self._keep(line.number, (line.raw or b"",))
        if self._renderer is not None:
            self._wait(line.number, line.size, row)

    def _wait(self, number: int, size: int, row: dict[str, Any]) -> None:
        self._waiting.append((number, self._tally.rows, row))
        self._waiting_bytes += size
        if len(self._waiting) >= _BATCH_ROWS or self._waiting_bytes >= _BATCH_BYTES:
            self._render()

    def _bad(self, line: int, example: int) -> None:
        self._tally.bad_lines.append(line)
        known = self._tally.first_bad_example
        self._tally.first_bad_example = min(example, known or example)

    def _value(self, line: SourceLine) -> Any:
        value, found = line_value(line, self._limits)
        if found is not None:
            rule, faults = found
            self._notes.note_all(rule, faults, line.number)
        return value

    def _row_rules(self, row: Any, line: int) -> bool:
        """Whether messages can be looked at."""
        assert self._kind is not None, "a line that can be read decides the kind"
        for rule in registry.ROW_RULES_OF_KIND[self._kind]:
            faults = list(rule.find(row))
            if faults:
                self._notes.note_all(rule, faults, line)
                if rule.stops:
                    return False
        return True

    def _message_rules(self, row: dict[str, Any], line: int) -> None:
        for number, prefix, message in _messages(self._kind, row):
            for rule in registry.MESSAGE_RULES:
                faults = list(rule.find(message))
                for fault in faults:
                    field = f"{prefix}{fault.field}" if fault.field else None
                    self._notes.note(rule, replace(fault, field=field), line, number)
                if faults and rule.stops:
                    break

    def _note_unused(self, row: dict[str, Any], line: int) -> None:
        """Counts what is allowed in a row and may have no effect."""
        tally = self._tally
        if self._kind is RowKind.PROMPT_COMPLETION:
            tally.pairs.add(line, row["prompt"], row["completion"])
            return
        chat = row["input"] if self._kind is RowKind.PREFERENCE else row
        if "parallel_tool_calls" in chat:
            tally.parallel = _one_more(tally.parallel, line)
        if self._named_roles is not None:
            for _, _, message in _messages(self._kind, row):
                # The same names that a request is refused for; a result's is its function's.
                role = message.get("role")
                if (
                    message.get("name") is not None
                    and role not in ("tool", "function")
                    and role not in self._named_roles
                ):
                    tally.names = _one_more(tally.names, line)

    def _render(self) -> None:
        """Renders the rows that wait, and runs the rules over what comes out."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._renderer is None or not waiting:
            return
        limit = min(
            self._limits.max_row_tokens or self._renderer.context_tokens,
            self._renderer.context_tokens,
        )
        assert self._kind is not None, "rows wait only after the first was read"
        tally, notes = self._tally, self._notes
        results = write_rows(self._kind, [row for _, _, row in waiting], self._renderer)
        for (line, example, row), result in zip(waiting, results, strict=True):
            forged = forged_messages(self._kind, row, self._renderer)
            facts = _rendered_facts(self._kind, result, limit, forged)
            before = notes.errors
            for rule in registry.RENDERED_RULES:
                notes.note_all(rule, rule.find(facts), line)
            if notes.errors > before or isinstance(result, InvalidRequest):
                self._bad(line, example)
                continue
            tally.tokens += sum(result.lengths)
            tally.learned_tokens += sum(result.learned)
            tally.longest_row = max(tally.longest_row, *result.lengths)
            tally.training_rows += len(result.lengths)


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
