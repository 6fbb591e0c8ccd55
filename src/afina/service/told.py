"""What an answer's pieces tell: text and calls, apart, with an id for each call.

One reader a choice; chats, their stored copies and responses are all written from its events.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from afina.domain import ids
from afina.serving.protocol import Delta
from afina.text.calls import CallArguments, CallBegun, CallReader, CallSyntax, Event, Said

__all__ = ["CallArguments", "CallBegun", "ChoiceReader", "Event", "Said", "WholeChoice"]


class ChoiceReader:
    """Reads the deltas of one choice."""

    def __init__(self, syntax: CallSyntax | None) -> None:
        self._reader = None if syntax is None else CallReader(syntax)

    def take(self, delta: Delta) -> list[Event]:
        """What one more piece tells; after the last one nothing is held back."""
        if self._reader is None:
            return [Said(delta.text)] if delta.text else []
        events = self._reader.push(delta.text)
        return events if delta.finish is None else [*events, *self._reader.finish()]

    def reason(self, finish: str) -> str:
        """Why the choice ended, calls considered. A call that a stop string cut in two is none to
        be carried out, so the reason stays `stop`."""
        reader = self._reader
        made = reader is not None and reader.count > 0 and not reader.is_inside
        return "tool_calls" if made and finish == "stop" else finish


@dataclass
class ToldCall:
    """One call: its function, and its arguments as they were written."""

    id: str
    name: str
    arguments: str = ""


@dataclass
class WholeChoice:
    """A choice as it grows: its text and its calls."""

    source: ids.Ids
    texts: list[str] = field(default_factory=list)
    calls: list[ToldCall] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Takes one event."""
        match event:
            case Said(text):
                self.texts.append(text)
            case CallBegun(_, name):
                self.calls.append(ToldCall(self.source.new(ids.CALL), name))
            case CallArguments(index, text):
                self.calls[index].arguments += text

    @property
    def text(self) -> str:
        return "".join(self.texts)
