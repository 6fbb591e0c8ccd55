"""Moderation of a data file: which rows are flagged, by line, message, category and score.

The report never holds a text. A row without any text that can be read is counted and the first such
line named: it was not judged. What happens to a flagged row is a policy by category: `warn` names
it, `quarantine` leaves it out of training too, `block` counts it against a share of the rows above
which the file is refused. Quarantined rows are counted as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from afina.data.lines import LineReader
from afina.data.moderation.categories import PARENTS
from afina.data.rows import slow_value
from afina.data.targets import check_targets

Policy = Literal["warn", "quarantine", "block"]
Judge = Callable[[Sequence[str]], list[Mapping[str, float]]]
"""For each text the categories that it is flagged in, with their scores."""
Progress = Callable[[int, int], None]
_RANK: Final[Mapping[str, int]] = {"warn": 0, "quarantine": 1, "block": 2}
_AT_ONCE: Final = 256
_LISTS: Final = ("messages", "preferred_output", "non_preferred_output")
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024
MOST_LISTED: Final = 10_000
VERSION: Final = 4
"""Of what is read; part of the key of a report that is kept."""


@dataclass(frozen=True)
class Rules:
    """What is done about flagged rows."""

    policy: Policy
    categories: Mapping[str, Policy]
    max_flagged_share: float

    def of(self, categories: Mapping[str, float]) -> Policy:
        """The strictest policy of the categories."""
        found = [self.categories.get(name, self.policy) for name in categories]
        return max(found, key=lambda policy: _RANK[policy])

    def named(self, categories: Mapping[str, float]) -> str:
        """The category that a message is named by: of those under its policy the likeliest, and
        sooner a threat than the harassment that it is too."""

        def weight(name: str) -> tuple[int, float, bool]:
            return _RANK[self.of({name: 1.0})], categories[name], name in PARENTS

        return max(categories, key=weight)


@dataclass(frozen=True)
class FlaggedMessage:
    """A message that is flagged: where it stands, and as what."""

    line: int
    where: str
    """`messages[2]`, `completion`, `input.messages[0]`."""
    category: str
    score: float
    policy: str


@dataclass(frozen=True)
class ModerationReport:
    """What was found in one file."""

    model: str
    rows: int
    flagged_rows: int
    counted_rows: int
    """Rows under `quarantine` or `block`: those that count against the share."""
    left_out: int
    categories: Mapping[str, int] = field(default_factory=dict)
    """Flagged rows by category."""
    messages: tuple[FlaggedMessage, ...] = ()
    """At most MOST_LISTED of them."""
    quarantined_lines: tuple[int, ...] = ()
    refused: bool = False
    unread_rows: int = 0
    """Rows in which no text was found, so that nothing was judged: `rows` counts them too."""
    first_unread: int | None = None
    """The line of the first of them."""

    def first_lines(self, most: int, *, counted: bool = False) -> str:
        """The first flagged lines, each once, or the first that count against the share."""
        of = (m.line for m in self.messages if not counted or m.policy != "warn")
        lines = list(dict.fromkeys(of))
        more = len(lines) > most or len(self.messages) == MOST_LISTED
        return ", ".join(str(line) for line in lines[:most]) + (", …" if more else "")


def moderate_file(
    path: str | Path,
    judge: Judge,
    model: str,
    rules: Rules,
    progress: Progress | None = None,
    on_flagged: Callable[[int], None] = lambda _line: None,
) -> ModerationReport:
    """The report on a JSONL file; what is wrong with lines that are no rows is somebody else's
    business, and that they were not judged stands in it. `on_flagged` is told each flagged line
    once, those too that the report has no room for."""
    path = Path(path)
    tally = _Tally(rules, on_flagged)
    waiting: list[tuple[int, list[tuple[str, str]]]] = []
    total = path.stat().st_size
    read = 0

    def settle() -> None:
        texts = [text for _, places in waiting for _, text in places]
        found = iter(judge(texts))
        for line, places in waiting:
            tally.add(line, [(where, next(found)) for where, _ in places])
        waiting.clear()
        if progress is not None:
            progress(min(read, total), total)

    for line in LineReader(path, _MOST_LINE_BYTES):
        read += line.size + 1
        if line.is_blank:
            continue
        texts = [] if line.raw is None else list(texts_of(line.raw))
        waiting.append((line.number, texts))
        if sum(len(places) for _, places in waiting) >= _AT_ONCE:
            settle()
    read = total
    settle()
    return tally.report(model)


def texts_of(raw: bytes) -> Iterator[tuple[str, str]]:
    """Where a row's texts stand, and the texts: of chats, prompts, completions and preferences,
    and of the calls of tools in them."""
    try:
        row = slow_value(raw)
    except (ValueError, RecursionError):
        return
    if not isinstance(row, Mapping):
        return
    yield from _of(row, "")


def has_texts(path: Path) -> bool:
    """Whether any line of a file holds a text that would be judged; reads up to the first."""
    lines = (line.raw for line in LineReader(path, _MOST_LINE_BYTES))
    return any(raw is not None and next(texts_of(raw), None) is not None for raw in lines)


def write_others(path: Path, target: Path, flagged: Collection[int]) -> None:
    """Writes the lines of `path` that are not `flagged`, byte for byte, whole or not at all.
    Raises InvalidRequest where `target` is the file itself."""
    check_targets(path, target)
    temporary = target.with_name(target.name + ".part")
    try:
        # Latin-1 gives every byte back, and newline="" every end of a line, cut as LineReader cuts.
        with (
            path.open(encoding="latin-1", newline="") as lines,
            temporary.open("w", encoding="latin-1", newline="") as kept,
        ):
            kept.writelines(line for number, line in enumerate(lines, 1) if number not in flagged)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _of(row: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name in _LISTS:
        chat = row.get(name)
        for index, message in enumerate(chat if isinstance(chat, list) else []):
            if isinstance(message, Mapping):
                yield from _content(message.get("content"), f"{before}{name}[{index}]")
                if isinstance(message.get("refusal"), str):
                    yield f"{before}{name}[{index}].refusal", message["refusal"]
                yield from _calls(message, f"{before}{name}[{index}]")
    for name in ("prompt", "completion", "text"):
        if isinstance(row.get(name), str):
            yield f"{before}{name}", row[name]
    inner = row.get("input")
    if isinstance(inner, Mapping):
        yield from _of(inner, "input.")


def _content(content: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield where, content
    elif isinstance(content, list):
        for index, part in enumerate(content):
            # A refusal is learned as any answer is.
            for key in ("text", "refusal") if isinstance(part, Mapping) else ():
                if isinstance(part.get(key), str):
                    yield f"{where}.content[{index}]", part[key]


def _calls(message: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """What an assistant says to tools, which is learned as much as what it says to people."""
    calls = message.get("tool_calls")
    named = [(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(_list(calls))]
    found = [(call.get("function"), name) for call, name in named if isinstance(call, Mapping)]
    for function, name in (*found, (message.get("function_call"), f"{where}.function_call")):
        if isinstance(function, Mapping) and (said := _said(function.get("arguments"))):
            yield name, said


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _said(arguments: object) -> str:
    """The strings in a call's arguments, a line each; what is no JSON as it stands."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        return "\n".join(_strings(value))
    except (ValueError, RecursionError):
        return arguments if isinstance(arguments, str) else ""


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


class _Tally:
    def __init__(self, rules: Rules, on_flagged: Callable[[int], None]) -> None:
        self._rules = rules
        self._on_flagged = on_flagged
        self._rows = self._flagged = self._counted = self._unread = 0
        self._first_unread: int | None = None
        self._categories: dict[str, int] = {}
        self._messages: list[FlaggedMessage] = []
        self._quarantined: list[int] = []

    def add(self, line: int, found: Sequence[tuple[str, Mapping[str, float]]]) -> None:
        self._rows += 1
        if not found:
            self._unread += 1
            self._first_unread = self._first_unread or line
        flagged = [(where, categories) for where, categories in found if categories]
        if not flagged:
            return
        self._flagged += 1
        self._on_flagged(line)
        together = {name: score for _, categories in flagged for name, score in categories.items()}
        policy = self._rules.of(together)
        self._counted += policy != "warn"
        if policy == "quarantine":
            self._quarantined.append(line)
        for name in together:
            self._categories[name] = self._categories.get(name, 0) + 1
        for where, categories in flagged:
            name = self._rules.named(categories)
            if len(self._messages) < MOST_LISTED:
                told, score = self._rules.of(categories), round(categories[name], 4)
                self._messages.append(FlaggedMessage(line, where, name, score, told))

    def report(self, model: str) -> ModerationReport:
        share = self._counted / self._rows if self._rows else 0.0
        return ModerationReport(
            model=model,
            rows=self._rows,
            flagged_rows=self._flagged,
            counted_rows=self._counted,
            left_out=len(self._quarantined),
            categories=dict(sorted(self._categories.items(), key=lambda item: -item[1])),
            messages=tuple(self._messages),
            quarantined_lines=tuple(self._quarantined),
            refused=share > self._rules.max_flagged_share,
            unread_rows=self._unread,
            first_unread=self._first_unread,
        )
