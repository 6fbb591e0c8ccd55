"""What is odd in rows that are written all the same: told with the first line where it stands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from afina.data.kinds import CHAT_KEYS, RowKind, kind_of_row
from afina.data.layouts import unknown_role
from afina.data.readers.records import Record
from afina.data.remarks import Remark, remark
from afina.data.rows import shown

_MOST_ROLES: Final = 8
_MOST_KEYS: Final = 8
_NUL: Final = rb"\u0000"
_READ_WRONG: Final = re.compile(
    rb"\xc3\x83\xc2[\x80-\xbf]|\xc3\x82\xc2[\xa0-\xbf]|\xc3\xa2\xe2\x82\xac"
)
"""What becomes of letters whose UTF-8 was read as Windows-1252."""


@dataclass
class Oddities:
    """Counts while rows go by."""

    nested: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    zeros: int = 0
    read_wrong: int = 0
    _first: dict[str, int | None] = field(default_factory=dict)

    def look_at_values(self, record: Record, columns: Sequence[str]) -> None:
        """Cells of the columns that messages are made of which hold lists or objects."""
        for column in columns:
            if isinstance(record.values.get(column), list | dict):
                self._first.setdefault(f"nested {column}", record.line)
                self.nested[column] += 1

    def look_at_left_out(self, line: int | None, left_out: Mapping[str, int]) -> None:
        """What a record held that is no part of its row."""
        for what, count in left_out.items():
            if count:
                self._first.setdefault(f"left out {what}", line)
                self.left_out[what] += count

    def look_at_messages(self, line: int | None, row: Mapping[str, Any]) -> None:
        """Roles that no chat has."""
        messages = row.get("messages")
        for message in messages if isinstance(messages, list) else ():
            role = unknown_role(message)
            if role is not None and (role in self.roles or len(self.roles) < _MOST_ROLES):
                self._first.setdefault(f"role {role}", line)
                self.roles[role] += 1

    def look_at_keys(self, line: int | None, row: Mapping[str, Any]) -> None:
        """Keys of a chat that the check refuses, as data sets carry them beside their messages."""
        if set(row) <= CHAT_KEYS or kind_of_row(row) is not RowKind.CHAT:
            return
        for key in row:
            if key not in CHAT_KEYS and (key in self.keys or len(self.keys) < _MOST_KEYS):
                self._first.setdefault(f"key {key}", line)
                self.keys[key] += 1

    def look_at_text(self, line: int | None, written: bytes) -> None:
        """The character U+0000, which is mostly what is left of another encoding, and letters that
        were read in another one before."""
        if _NUL in written:
            self._first.setdefault("zero", line)
            self.zeros += 1
        if _READ_WRONG.search(written) is not None:
            self._first.setdefault("read wrong", line)
            self.read_wrong += 1

    def notes(self) -> list[Remark]:
        """What was found, a sentence each."""
        said = [
            remark("nested", column=repr(column), n=count, **self._at(f"nested {column}"))
            for column, count in self.nested.items()
        ]
        for what, count in self.left_out.items():
            said.append(remark(what, n=count, **self._at(f"left out {what}")))
        for role, count in self.roles.items():
            said.append(remark("role", role=shown(role), n=count, **self._at(f"role {role}")))
        for key, count in self.keys.items():
            said.append(remark("key", key=shown(key), n=count, **self._at(f"key {key}")))
        if self.zeros:
            said.append(remark("zeros", n=self.zeros, **self._at("zero")))
        if self.read_wrong:
            said.append(remark("read_wrong", n=self.read_wrong, **self._at("read wrong")))
        return said

    def _at(self, what: str) -> dict[str, int]:
        line = self._first.get(what)
        return {} if line is None else {"line": line}
