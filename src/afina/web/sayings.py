"""What the platform says of a job, in the reader's language: by name, never by its words.

Events and errors carry the names of their sentences (`afina.domain.sayings`); the texts are in
`strings.toml`, sections `event` and `fault`. What has no name, or one from a newer version, is
shown as it stands on the wire, and marked as English.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afina.domain.events import JobEvent
from afina.domain.jobs import JobError
from afina.domain.sayings import Said, Value, joined
from afina.service.gate import faults_in, told_in
from afina.store.gates import GateRow
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


@dataclass(frozen=True)
class GateWords:
    """What a gate found, for a reader."""

    status: str
    verdict: str | None
    faults: tuple[Sentence, ...]
    parts: tuple[tuple[Mapping[str, Any], Sentence | None], ...]
    """The report's parts, each with what there is to know of it."""
    note: Sentence | None
    """Why there is no report."""


def gate_words(texts: Texts, row: GateRow | None) -> GateWords | None:
    """The gate of a model; None where none was asked for."""
    if row is None:
        return None
    report = row.report or {"parts": (), "reasons": ()}
    return GateWords(
        row.status,
        report.get("verdict"),
        tuple(_sentence(texts, (fault,)) for fault in faults_in(report)),
        tuple(
            (part, _sentence(texts, told) if (told := told_in(part)) else None)
            for part in report["parts"]
        ),
        Sentence(row.note, "en") if row.note else None,
    )


def _sentence(texts: Texts, said: Sequence[Said]) -> Sentence:
    language = "en" if all(one.name == "words" for one in said) else texts.language
    return Sentence(_in_words(texts, "event", said), language)


def _in_words(texts: Texts, section: str, said: Sequence[Said]) -> str:
    """The sentences of one section, one after the other; empty where one is not known."""
    if not said or not all(texts.has(f"{section}.{one.name}") for one in said):
        return ""
    shown = [
        texts(f"{section}.{one.name}", **{k: _written(texts, k, v) for k, v in one.values.items()})
        for one in said
    ]
    return joined(shown) if section == "event" else " ".join(shown)


def _written(texts: Texts, name: str, value: Value) -> str:
    """One value as the language writes it."""
    if isinstance(value, int | float):
        if name.endswith("_s"):
            return numbers.span(texts, value)
        if name.endswith("_bytes"):
            return numbers.size(texts.language, int(value))
        if name.endswith("_share"):
            return f"{numbers.number(texts.language, 100 * value)}\N{NO-BREAK SPACE}%"
        if name.endswith("_nats"):
            return numbers.number(texts.language, value, 2)
        return numbers.number(texts.language, value, 0 if float(value).is_integer() else 1)
    if name == "found" and texts.language != "en":
        return ", ".join(_counted(texts, one) for one in value.split(", "))
    named = {
        "rule": f"rule.{value.replace('-', '_')}",
        "file": f"event.file_{value}",
        "what": f"event.what_{value}",
    }
    key = named.get(name)
    return texts(key) if key is not None and texts.has(key) else value


def _counted(texts: Texts, found: str) -> str:
    """`3 hate/threatening` by the name that the reader knows the kind by."""
    count, _, kind = found.partition(" ")
    key = f"mark.{kind.replace('/', '_').replace('-', '_')}"
    return f"{count} {texts(key) if texts.has(key) else kind.upper()}"
