"""How a model writes calls of tools, and how they are read back from its answer as it grows.

Every model that knows tools has its own text for a call. Here it is five strings, found by
rendering calls of which everything is known:

    opening NAME middle ARGUMENTS (between NAME middle ARGUMENTS)* closing

with ARGUMENTS as JSON. The same strings give the grammar that holds an answer to this form
(afina.text.grammars), so what is read back is what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from afina.text.tools import OWN_CALL

_NAME: Final = "afina_probe"
_OTHER: Final = "afina-second"
_SAID: Final = "Afinando."
_ARGUMENTS: Final[dict[str, Any]] = {"afina_a": "x", "afina_b": [1, {"c": None}]}
_NAME_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
)


@dataclass(frozen=True)
class CallSyntax:
    """The text of calls. `trigger` is how `opening` begins: where it stands, a call begins; it is
    empty where only the beginning of an answer tells a call from text."""

    opening: str
    middle: str
    between: str
    closing: str
    trigger: str
    item_separator: str = ", "
    key_separator: str = ": "


OWN: Final = CallSyntax(
    opening=OWN_CALL[0],
    middle=OWN_CALL[1],
    between=f"{OWN_CALL[2]}\n{OWN_CALL[0]}",
    closing=OWN_CALL[2],
    trigger=OWN_CALL[0].partition("{")[0],
)
"""For models whose template knows no tools (afina.text.tools)."""


@dataclass(frozen=True)
class Said:
    """Text that is no call."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """Call number `index` names its function."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of a call's arguments, as they were written."""

    index: int
    text: str


Event = Said | CallBegun | CallArguments


def probe_calls(count: int, said: str = "") -> dict[str, Any]:
    """An assistant's message with known calls, as templates take it."""
    calls = [
        {"type": "function", "function": {"name": name, "arguments": _ARGUMENTS}}
        for name in (_NAME, _OTHER)[:count]
    ]
    return {"role": "assistant", "content": said, "tool_calls": calls}


def learn_calls(
    write: Callable[[dict[str, Any]], str], control: Sequence[str]
) -> CallSyntax | None:
    """The syntax of a template, given what writes an assistant's turn, or None for one whose calls
    are not JSON between fixed texts. `control` are the texts of control tokens."""
    one, two = write(probe_calls(1)), write(probe_calls(2))
    for separators in ((", ", ": "), (",", ":")):
        arguments = json.dumps(_ARGUMENTS, separators=separators)
        opening, found, rest = one.partition(_NAME)
        middle, told, closing = rest.partition(arguments)
        if not (found and told and middle) or middle[0] in _NAME_CHARACTERS:
            continue
        body = f"{_NAME}{middle}{arguments}"
        between, second, end = two.partition(opening + body)[2].partition(_OTHER)
        if not second or end != f"{middle}{arguments}{closing}" or not between:
            continue
        opening = _after_text(write, opening)
        return CallSyntax(
            opening, middle, between, closing, _trigger(opening, control), *separators
        )
    return None


def _after_text(write: Callable[[dict[str, Any]], str], opening: str) -> str:
    """What opens calls, without what stands there only where nothing is said before them."""
    before, said, _ = write(probe_calls(1, _SAID)).partition(_NAME)[0].rpartition(_SAID)
    after = write(probe_calls(1, _SAID)).partition(_NAME)[0][len(before) + len(said) :]
    inside = after.lstrip()
    return inside if said and inside and opening.endswith(inside) else opening.lstrip()


def _trigger(opening: str, control: Sequence[str]) -> str:
    for text in control:
        if text and opening.startswith(text):
            return text
    return opening.partition("{")[0].rstrip(" \n[")


class CallReader:
    """Reads one answer as it grows."""

    def __init__(self, syntax: CallSyntax) -> None:
        self._syntax = syntax
        self._held = ""
        self._read: Callable[[], list[Event] | None] = self._text
        self._started = False
        self._json = _JsonEnd()
        self.count = 0
        """Calls whose function was named."""

    @property
    def is_inside(self) -> bool:
        """Whether the answer is in the middle of a call's arguments."""
        return self._read == self._arguments

    def push(self, text: str) -> list[Event]:
        """More text; what it tells."""
        self._held += text
        events: list[Event] = []
        while True:
            found = self._read()
            if found is None:
                return _merged(events)
            events += found

    def finish(self) -> list[Event]:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        if self._read == self._name:  # cut in the middle of a name: it is told as it was written
            held = self._begun() + held
        if self._read == self._after or not held:
            return []
        return [Said(held)]

    def _begun(self) -> str:
        """What stands before a name; of what parts two calls, not the end of the one before."""
        if not self.count:
            return self._syntax.opening
        between, closing = self._syntax.between, self._syntax.closing
        alike = 0
        while between[alike : alike + 1] == closing[alike : alike + 1] != "":
            alike += 1
        return between[alike:].lstrip()

    def _text(self) -> list[Event] | None:
        """Text up to where a call begins."""
        trigger = self._syntax.trigger
        if not trigger:
            return self._bare()
        at = self._held.find(trigger)
        if at >= 0:
            said = self._held[:at].rstrip()
            self._held = self._held[at:]
            self._read = self._opening
            return [Said(said)] if said else []
        # Held back: what may be the beginning of a call, and white space before it.
        keep = len(self._held) - len(self._held[: -_overlap(self._held, trigger) or None].rstrip())
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return [Said(shown)] if shown else None

    def _bare(self) -> list[Event] | None:
        opening = self._syntax.opening
        if not self._started and opening.startswith(self._held[: len(opening)].lstrip()):
            self._held = self._held.lstrip()
            if len(self._held) < len(opening):
                return None
            self._read = self._opening
            return []
        self._started = True
        shown, self._held = self._held, ""
        return [Said(shown)] if shown else None

    def _opening(self) -> list[Event] | None:
        opening = self._syntax.opening
        if self._held.startswith(opening):
            self._held = self._held[len(opening) :]
            self._read = self._name
            return []
        if opening.startswith(self._held):
            return None
        length = max(1, len(self._syntax.trigger))
        shown, self._held = self._held[:length], self._held[length:]
        self._started = True
        self._read = self._text
        return [Said(shown)]

    def _name(self) -> list[Event] | None:
        name, found, rest = self._held.partition(self._syntax.middle)
        if not found:
            return None
        self._held = rest
        self._json = _JsonEnd()
        self._read = self._arguments
        self.count += 1
        return [CallBegun(self.count - 1, name)]

    def _arguments(self) -> list[Event] | None:
        if not self._held:
            return None
        end = self._json.push(self._held)
        text = self._held if end is None else self._held[:end]
        self._held = "" if end is None else self._held[end:]
        if end is not None:
            self._read = self._after
        return [CallArguments(self.count - 1, text)] if text else []

    def _after(self) -> list[Event] | None:
        between, closing = self._syntax.between, self._syntax.closing
        if self._held.startswith(between):
            self._held = self._held[len(between) :]
            self._read = self._name
            return []
        if between.startswith(self._held) or (
            closing.startswith(self._held) and self._held != closing
        ):
            return None
        self._held = self._held.removeprefix(closing).lstrip()
        self._started = True
        self._read = self._text
        return []


class _JsonEnd:
    """Finds where a JSON object that comes in pieces ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def push(self, text: str) -> int | None:
        """The place after the object's end in `text`, None while it goes on."""
        for place, character in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return place + 1
        return None


def _overlap(text: str, trigger: str) -> int:
    """The length of the longest end of `text` that begins `trigger`."""
    for size in range(min(len(text), len(trigger) - 1), 0, -1):
        if text.endswith(trigger[:size]):
            return size
    return 0


def _merged(events: list[Event]) -> list[Event]:
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Said) and isinstance(last, Said):
            merged[-1] = Said(last.text + event.text)
        else:
            merged.append(event)
    return merged
