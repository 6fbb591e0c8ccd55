"""What the platform says of a job, in the reader's language: by name, never by its words.

Events and errors carry the names of their sentences (`afina.domain.sayings`); the texts are in
`strings.toml`, sections `event` and `fault`. What has no name, or one from a newer version, is
shown as it stands on the wire, and marked as English.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afina.domain.events import JobEvent
from afina.domain.jobs import JobError
from afina.domain.sayings import Said, Value
from afina.web import numbers
from afina.web.strings import Texts


@dataclass(frozen=True)
class Sentence:
    """A text and the language it is in."""

    text: str
    language: str


@dataclass(frozen=True)
class Fault:
    """Why a job failed. `exactly` is what the wire says, where the reader is told it in others'
    words; None where it is what they read."""

    text: str
    language: str
    exactly: str | None = None


def heard(texts: Texts, event: JobEvent) -> Sentence:
    """An event's message."""
    found = _in_words(texts, "event", event.said) or _in_words(texts, "fault", event.said)
    return Sentence(found, texts.language) if found else Sentence(event.message, "en")


def fault(texts: Texts, error: JobError) -> Fault:
    """Why a job failed, and what to do. English readers get the wire's own words."""
    if texts.language == "en":
        return Fault(error.message, "en")
    found = _in_words(texts, "fault", error.said)
    code = f"fault.code_{error.code}"
    if not found and texts.has(code):
        found = texts(code)
    return Fault(found, texts.language, error.message) if found else Fault(error.message, "en")


def _in_words(texts: Texts, section: str, said: Sequence[Said]) -> str:
    """The sentences of one section, one after the other; empty where one is not known."""
    if not said or not all(texts.has(f"{section}.{one.name}") for one in said):
        return ""
    shown = [
        texts(f"{section}.{one.name}", **{k: _written(texts, k, v) for k, v in one.values.items()})
        for one in said
    ]
    return ("; " if section == "event" else " ").join(shown)


def _written(texts: Texts, name: str, value: Value) -> str:
    """One value as the language writes it."""
    if isinstance(value, int | float):
        if name.endswith("_s"):
            return numbers.span(texts, value)
        if name.endswith("_bytes"):
            return numbers.size(texts.language, int(value))
        return numbers.number(texts.language, value, 0 if float(value).is_integer() else 1)
    named = {"rule": f"rule.{value.replace('-', '_')}", "file": f"event.file_{value}"}
    key = named.get(name)
    return texts(key) if key is not None and texts.has(key) else value
