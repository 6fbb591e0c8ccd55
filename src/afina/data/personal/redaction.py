"""Takes personal data and secrets out of rows: a stable placeholder for each value, and a record.

Within a file the same value gets the same placeholder, `<EMAIL_3>`, so that a tuned model learns
the place and not the person. The audit names row, field, kind, rule and placeholder, and never the
value. Lines keep their numbers; one that is no JSON is read as plain text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from afina.data.lines import LineReader
from afina.data.personal.detect import ALL_KINDS, find_in_field, find_personal
from afina.data.personal.inner_json import Written, write_again
from afina.data.personal.spans import PersonalKind, Span
from afina.data.rows import quick_value, shown_field, slow_value
from afina.data.targets import check_targets

VERSION: Final = 8
"""Of what is found and how it is written; part of the key of what the stage leaves behind."""
_KEPT: Final = frozenset({"role", "type", "tool_call_id", "id", "weight"})
"""Keys whose values are structure, and not what people wrote."""
_NO_ITEM: Final = frozenset(
    {"messages", "tools", "functions", "prompt", "completion", "parallel_tool_calls"}
    | {"input", "preferred_output", "non_preferred_output"}
)
"""Keys of a row whose numbers are nobody's: the others are an item's, which graders read."""
_TOOLS: Final = frozenset({"tool", "function"})
"""Roles of messages that hold what a tool gave."""
_IN_KEY: Final = re.compile(r"[@<]|\d[\d .()/:-]{4,}\d")
"""Without it the name of a field is nobody's."""
_DEPTH: Final = 64
_PLACEHOLDER: Final = re.compile(r"<([A-Z_]+)_(\d+)>")
_PROGRESS_LINES: Final = 512


@dataclass(frozen=True)
class Redacted:
    """One place where something was taken out: what an audit keeps."""

    line: int
    field: str
    kind: PersonalKind
    rule: str
    placeholder: str


@dataclass(frozen=True)
class RedactionReport:
    """What `redact_file` did. `rows` = `rows_changed` + those without any personal data."""

    rows: int
    rows_changed: int
    places: Mapping[str, int] = field(default_factory=dict)
    """Places, by kind."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Different values, by kind."""
    as_text: int = 0
    """Rows that are no JSON, looked at as plain text."""
    unread: int = 0
    """Of those, rows with bytes that no text holds: nothing can be found in them."""
    first_unread: int | None = None
    """The line of the first of them."""


class Placeholders:
    """Which placeholder stands for which value, in one file."""

    def __init__(self, taken: Mapping[PersonalKind, int] | None = None) -> None:
        self._numbers: dict[bytes, str] = {}
        self._last: Counter[PersonalKind] = Counter(taken or {})
        self._first = Counter(self._last)
        self.values: dict[str, str] = {}
        """Value by placeholder; kept only where `keep` was asked for."""

    def of(self, kind: PersonalKind, value: str, keep: bool = False) -> str:
        """The placeholder of a value; the same for the same value, spaces and case apart."""
        plain = re.sub(r"[\s().-]", "", value).lower() if kind not in _EXACT else value
        digest = blake2b(f"{kind}\0{plain}".encode(), digest_size=12).digest()
        placeholder = self._numbers.get(digest)
        if placeholder is None:
            self._last[kind] += 1
            placeholder = f"<{kind.name}_{self._last[kind]}>"
            self._numbers[digest] = placeholder
            if keep:
                self.values[placeholder] = value
        return placeholder

    def counts(self) -> dict[str, int]:
        """How many different values there are, by kind."""
        return {
            kind.value: count - self._first[kind]
            for kind, count in self._last.items()
            if count > self._first[kind]
        }


_EXACT: Final = frozenset(
    {PersonalKind.PASSWORD, PersonalKind.API_KEY, PersonalKind.URL_SECRET, PersonalKind.IP}
)


def redact_text(
    text: str, placeholders: Placeholders, kinds: frozenset[PersonalKind] = ALL_KINDS
) -> tuple[str, list[tuple[Span, str]]]:
    """The text with placeholders, and what each stands for (spans are those of `text`)."""
    found = [
        (s, placeholders.of(s.kind, text[s.start : s.end])) for s in find_personal(text, kinds)
    ]
    return _replaced(text, found), found


def redact_file(
    path: str | Path,
    target: str | Path,
    *,
    kinds: frozenset[PersonalKind] = ALL_KINDS,
    audit: str | Path | None = None,
    keep_values: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[RedactionReport, Placeholders]:
    """Writes `path` without personal data to `target`, and what was taken out to `audit`, JSON
    lines; each whole or not at all. With `keep_values` the placeholders know their values, for a
    vault. Lines keep their numbers."""
    path, target = Path(path), Path(target)
    audit = None if audit is None else Path(audit)
    check_targets(path, target, audit)
    reader = LineReader(path, max(1, path.stat().st_size))
    work = _Work(kinds, keep_values, Placeholders(_taken(path)))
    parts = [target.with_name(target.name + ".part")]
    if audit is not None:
        parts.append(audit.with_name(audit.name + ".part"))
    try:
        files = [part.open("wb") for part in parts]
        try:
            _copy(reader, work, files, progress)
        finally:
            for file in files:
                file.close()
        for part, final in zip(parts, (target, audit), strict=False):
            assert final is not None, "a part is written only for a file that was asked for"
            part.replace(final)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    report = RedactionReport(
        work.rows,
        work.rows_changed,
        dict(work.places),
        work.placeholders.counts(),
        as_text=work.as_text,
        unread=work.unread,
        first_unread=work.first_unread,
    )
    return report, work.placeholders


def restore_text(text: str, values: Mapping[str, str]) -> str:
    """`text` with the values that a vault has for its placeholders; unknown ones stay."""
    return _PLACEHOLDER.sub(lambda match: values.get(match.group(), match.group()), text)


def restore_file(path: str | Path, target: str | Path, values: Mapping[str, str]) -> int:
    """Writes `path` with the vault's values back in their places; how many lines changed. JSON
    lines stay JSON, other lines are text."""
    path, target = Path(path), Path(target)
    check_targets(path, target)
    changed = 0
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb") as out:
            for line in LineReader(path, max(1, path.stat().st_size)):
                assert line.raw is not None, "no line is longer than its file"
                raw = line.raw
                value = _written(raw) if b"<" in raw else None
                if value is not None:
                    back = map_texts(value, lambda text, _: restore_text(text, values))
                    raw = raw if back == value else msgspec.json.encode(back)
                elif b"<" in raw:
                    raw = restore_text(raw.decode("utf-8", "surrogateescape"), values).encode(
                        "utf-8", "surrogateescape"
                    )
                changed += raw is not line.raw and raw != line.raw
                out.write(raw + b"\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return changed


def map_texts(
    value: Any, change: Callable[[str, str], str], where: str = "", numbers: bool = False
) -> Any:
    """A JSON value with `change(text, field)` applied to all that people wrote in it. `numbers`:
    whole numbers are texts too, and become texts where they change."""
    if isinstance(value, Written):
        return value
    if isinstance(value, str):
        return change(value, where)
    if numbers and isinstance(value, int) and not isinstance(value, bool):
        written = change(str(value), where)
        return value if written == str(value) else written
    if isinstance(value, list):
        return [map_texts(item, change, f"{where}[{at}]", numbers) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}
    from_tool = value.get("role") in _TOOLS
    for key, item in value.items():
        name = _key(key, change, where, changed)
        inside = f"{where}.{shown_field(name) or '?'}" if where else (shown_field(name) or "?")
        if key in _KEPT and isinstance(item, str | int):
            changed[name] = item
        elif isinstance(item, str) and (key == "arguments" or (from_tool and key == "content")):
            changed[name] = _map_json(item, change, inside)
        else:
            is_item = not where and key not in _NO_ITEM
            changed[name] = map_texts(item, change, inside, numbers or is_item)
    return changed


def _key(key: str, change: Callable[[str, str], str], where: str, taken: Container[str]) -> str:
    """The name of a field, which may be somebody's address. No field is lost where two names that
    were spelled differently become one."""
    if _IN_KEY.search(key) is None:
        return key
    name = change(key, f"{where}.?" if where else "?")
    while name != key and name in taken:
        name += "+"
    return name


class _Work:
    """Rows of one file on their way."""

    def __init__(
        self, kinds: frozenset[PersonalKind], keep: bool, placeholders: Placeholders
    ) -> None:
        self._kinds = kinds
        self._keep = keep
        self.placeholders = placeholders
        self.rows = self.rows_changed = 0
        self.places: Counter[str] = Counter()
        self.as_text = self.unread = 0
        self.first_unread: int | None = None

    def line(self, raw: bytes, number: int) -> tuple[bytes, list[Redacted]]:
        """A line without personal data, and what was taken out."""
        if not raw.strip():
            return raw, []
        self.rows += 1
        value = _written(raw)
        found: list[Redacted] = []

        def change(text: str, where: str) -> str:
            spans = find_in_field(text, where, self._kinds)
            named = [
                (s, self.placeholders.of(s.kind, text[s.start : s.end], self._keep)) for s in spans
            ]
            found.extend(Redacted(number, where, s.kind, s.rule, name) for s, name in named)
            return _replaced(text, named)

        if value is None:
            text = self._text(raw, number, change)
        else:
            changed = map_texts(value, change)
        if not found:
            return raw, []
        self.rows_changed += 1
        self.places.update(item.kind.value for item in found)
        return text if value is None else _encoded(changed), found

    def _text(self, raw: bytes, number: int, change: Callable[[str, str], str]) -> bytes:
        """A line that is no JSON: a table's row, or a damaged one. It may hold as much."""
        self.as_text += 1
        if b"\0" in raw:
            self.unread += 1
            self.first_unread = self.first_unread or number
        try:
            return change(raw.decode("utf-8"), "").encode("utf-8")
        except UnicodeDecodeError:  # in any code page ASCII stands for itself
            return change(raw.decode("latin-1"), "").encode("latin-1")


def _copy(
    reader: LineReader,
    work: _Work,
    files: Sequence[BinaryIO],
    progress: Callable[[int, int], None] | None,
) -> None:
    for line in reader:
        assert line.raw is not None, "no line is longer than its file"
        raw, found = work.line(line.raw, line.number)
        files[0].write(raw + b"\n")
        for item in found if len(files) > 1 else ():
            files[1].write(msgspec.json.encode(item) + b"\n")
        if progress is not None and line.number % _PROGRESS_LINES == 0:
            progress(reader.bytes_read, reader.bytes_total)


def _encoded(row: Any) -> bytes:
    """A row as JSON. Half a character, which the check will name, stays as it was written."""
    try:
        return msgspec.json.encode(row)
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii")


def _written(raw: bytes) -> dict[str, Any] | list[Any] | str | None:
    """What a line says as JSON, where people can have written in it; None for other lines."""
    value = quick_value(raw, _DEPTH)
    if value is msgspec.UNSET:
        try:
            value = slow_value(raw)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list | str) else None


def _replaced(text: str, found: list[tuple[Span, str]]) -> str:
    if not found:
        return text
    pieces, done = [], 0
    for span, placeholder in found:
        pieces += [text[done : span.start], placeholder]
        done = span.end
    return "".join([*pieces, text[done:]])


def _map_json(text: str, change: Callable[[str, str], str], where: str) -> str:
    """Arguments of a call are JSON in a string, and what a tool gave often is: it stays so, and a
    number that is somebody's becomes a string."""
    if isinstance(text, Written):
        return text
    try:
        value = json.loads(text, parse_float=Written, parse_constant=Written)
    except (ValueError, RecursionError):
        return change(text, where)
    if not isinstance(value, dict | list):
        return change(text, where)

    changed = map_texts(value, change, where, numbers=True)
    return text if changed == value else write_again(changed, like=text)


def _taken(path: Path) -> dict[PersonalKind, int]:
    """The highest numbers of placeholders that the file has already, so that none is used twice."""
    taken: dict[PersonalKind, int] = {}
    for line in _lines_with(path, b"<"):
        for name, number in _PLACEHOLDER.findall(line.decode("utf-8", errors="replace")):
            if name in PersonalKind.__members__ and len(number) < 10:
                kind = PersonalKind[name]
                taken[kind] = max(taken.get(kind, 0), int(number))
    return taken


def _lines_with(path: Path, sign: bytes) -> Iterator[bytes]:
    for line in LineReader(path, max(1, path.stat().st_size)):
        if line.raw is not None and sign in line.raw:
            yield line.raw
