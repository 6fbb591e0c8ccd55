"""What a machine can mend in a row without guessing what people meant.

Each fix belongs to a rule and changes a row in place; `fix_file` writes a new file and counts what
it changed by rule. The file that was checked is never touched, and a line that no fix concerns is
copied byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.kinds import CHAT_KEYS, OLD_PREFERENCE_KEYS, PREFERENCE_KEYS, RowKind, kind_of_row
from afina.data.lines import LineReader
from afina.data.rows import quick_value
from afina.data.rules.message import KEYS_BY_ROLE
from afina.data.rules.pair import PAIR_KEYS
from afina.data.targets import check_targets

Row = dict[str, Any]
Fix = Callable[[RowKind, Row], int]
"""Changes a row in place and returns how many places it mended."""

_ROLES: Final = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "instructor": "system",
}
_ROW_KEYS: Final = {
    RowKind.CHAT: CHAT_KEYS,
    RowKind.PROMPT_COMPLETION: PAIR_KEYS,
    RowKind.PREFERENCE: PREFERENCE_KEYS,
}
_MAIN: Final = {
    RowKind.CHAT: frozenset({"messages"}),
    RowKind.PROMPT_COMPLETION: frozenset({"completion"}),
    RowKind.PREFERENCE: PREFERENCE_KEYS,
}
"""Where these are missing, what was meant may stand under a key that is unknown."""
_SAID: Final = frozenset({"content", "tool_calls", "function_call", "refusal"})
_DEPTH: Final = 64


def _known_role(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    count = 0
    for message in _messages(row):
        role = message.get("role")
        plain = role.strip().lower() if isinstance(role, str) else ""
        known = _ROLES.get(plain, plain)
        if known in KEYS_BY_ROLE and known != role:
            message["role"] = known
            count += 1
    return count


def _old_names(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    count = 0
    for old, new in OLD_PREFERENCE_KEYS.items():
        if old in row and new not in row:
            row[new] = row.pop(old)
            count += 1
    return count


def _extra_row_keys(kind: RowKind, row: Row) -> int:
    known = _ROW_KEYS.get(kind) if _MAIN.get(kind, frozenset()) <= row.keys() else None
    extra = [key for key in row if key not in known] if known is not None else []
    for key in extra:
        del row[key]
    return len(extra)


def _extra_message_keys(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    count = 0
    for message in _messages(row):
        known = KEYS_BY_ROLE.get(str(message.get("role"))) if _SAID & message.keys() else None
        for key in [key for key in message if known is not None and key not in known]:
            del message[key]
            count += 1
    return count


def _weights(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    count = 0
    for message in _messages(row):
        weight = message.get("weight", 1)
        if isinstance(weight, bool) or weight in ("0", "1"):
            message["weight"] = int(weight)
            count += 1
    return count


def _calls(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    count = 0
    for message in _messages(row):
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if not isinstance(call, dict):
                continue
            if "type" not in call and "function" in call:
                call["type"] = "function"
                count += 1
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
                function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
                count += 1
    return count


def _empty_prompt(kind: RowKind, row: Row) -> int:
    if kind is RowKind.PROMPT_COMPLETION and row.get("prompt") is None:
        row["prompt"] = ""
        return 1
    return 0


def _one_space(kind: RowKind, row: Row) -> int:
    completion = row.get("completion")
    bare = isinstance(completion, str) and completion.strip() and not completion[0].isspace()
    if kind is RowKind.PROMPT_COMPLETION and bare:
        row["completion"] = f" {completion}"
        return 1
    return 0


def _parallel_flag(kind: RowKind, row: Row) -> int:  # noqa: ARG001
    chat = row.get("input") if "input" in row else row
    if isinstance(chat, dict) and "parallel_tool_calls" in chat:
        del chat["parallel_tool_calls"]
        return 1
    return 0


FIXES: Final[Mapping[str, Fix]] = {
    "unknown-role": _known_role,
    "old-preference-key": _old_names,
    "unknown-row-key": _extra_row_keys,
    "unknown-message-key": _extra_message_keys,
    "bad-weight": _weights,
    "bad-tool-calls": _calls,
    "missing-prompt": _empty_prompt,
    "completion-starts-bare": _one_space,
    "parallel-flag-without-effect": _parallel_flag,
}
"""By the rule that each mends, in the order in which they run."""
OF_THE_FILE: Final[Mapping[str, str]] = {
    "blank-lines": "blank lines are left out",
    "duplicate-row": "all but the first of equal rows are left out",
}
"""What is mended by leaving lines out."""


@dataclass(frozen=True)
class FixReport:
    """What `fix_file` did: `rows_in` = `rows_out` + `rows_dropped`."""

    rows_in: int
    rows_out: int
    rows_dropped: int
    rows_changed: int
    changes: Mapping[str, int] = field(default_factory=dict)
    """Places mended, by rule."""


def fix_row(row: Row, kind: RowKind) -> Counter[str]:
    """Mends `row` in place; how many places, by rule."""
    changed: Counter[str] = Counter()
    for code, fix in FIXES.items():
        count = fix(kind, row)
        if count:
            changed[code] = count
    return changed


def fix_file(path: str | Path, target: str | Path, kind: RowKind | None = None) -> FixReport:
    """Writes `path` with all that can be mended to `target`, whole or not at all. Lines that are no
    JSON objects pass as they are, for the check to name."""
    path, target = Path(path), Path(target)
    check_targets(path, target)
    work = _Work(kind)
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb") as out:
            for line in LineReader(path, max(1, path.stat().st_size)):
                assert line.raw is not None, "no line is longer than its file"
                for raw in work.line(line.raw):
                    out.write(raw + b"\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return FixReport(
        rows_in=work.rows_in,
        rows_out=work.rows_out,
        rows_dropped=work.rows_in - work.rows_out,
        rows_changed=work.rows_changed,
        changes=dict(work.changes),
    )


class _Work:
    """Lines of one file on their way."""

    def __init__(self, kind: RowKind | None) -> None:
        self._kind = kind
        self._seen: set[bytes] = set()
        self.rows_in = self.rows_out = self.rows_changed = 0
        self.changes: Counter[str] = Counter()

    def line(self, raw: bytes) -> Iterator[bytes]:
        """The line as it is to be written; nothing where it is left out."""
        if not raw.strip():
            self.changes["blank-lines"] += 1
            return
        self.rows_in += 1
        value = quick_value(raw, _DEPTH)
        if isinstance(value, dict):
            kind = self._kind = self._kind or kind_of_row(value) or RowKind.CHAT
            changed = fix_row(value, kind)
            if changed:
                self.changes += changed
                self.rows_changed += 1
                raw = msgspec.json.encode(value)
        digest = blake2b(raw, digest_size=16).digest()
        if digest in self._seen:
            self.changes["duplicate-row"] += 1
            return
        self._seen.add(digest)
        self.rows_out += 1
        yield raw


def _messages(row: Row) -> Iterator[dict[str, Any]]:
    chat = row.get("input") if "input" in row else row
    lists = [chat.get("messages")] if isinstance(chat, dict) else []
    lists += [row.get("preferred_output"), row.get("non_preferred_output")]
    for messages in lists:
        for message in messages if isinstance(messages, list) else []:
            if isinstance(message, dict):
                yield message
