"""What the platform says of a job, in the reader's language: by name, never by its words.

Events and errors carry the names of their sentences (`afina.domain.sayings`); the texts are in
`strings.toml`, sections `event` and `fault`. What has no name, or one from a newer version, is
shown as it stands on the wire, and marked as English.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from afina.domain.events import JobEvent
from afina.domain.jobs import JobError
from afina.language.sentences import Sentence, in_words, sentence
from afina.language.strings import Texts
from afina.service.card_gate import again, only_told
from afina.service.gate import faults_in, told_in
from afina.store.gates import GateRow


@dataclass(frozen=True)
class Fault:
    """Why a job failed. `exactly` is what the wire says, where the reader is told it in others'
    words; None where it is what they read."""

    text: str
    language: str
    exactly: str | None = None


def heard(texts: Texts, event: JobEvent) -> Sentence:
    """An event's message."""
    found = in_words(texts, "event", event.said) or in_words(texts, "fault", event.said)
    return Sentence(found, texts.language) if found else Sentence(event.message, "en")


def fault(texts: Texts, error: JobError) -> Fault:
    """Why a job failed, and what to do. English readers get the wire's own words."""
    if texts.language == "en":
        return Fault(error.message, "en")
    found = in_words(texts, "fault", error.said)
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
    """The report's parts, each with what there is to know of it; `only_told`: no limit of it can
    hold a model."""
    note: Sentence | None
    """Why there is no report."""
    again: str = ""
    """What came of asking again, where the report is a former one."""


def gate_words(texts: Texts, row: GateRow | None) -> GateWords | None:
    """The gate of a model; None where none was asked for."""
    if row is None:
        return None
    report = row.report or {"parts": (), "reasons": ()}
    return GateWords(
        row.status,
        report.get("verdict"),
        tuple(sentence(texts, (fault,)) for fault in faults_in(report)),
        tuple(
            (
                {**part, "only_told": only_told(part["name"], report.get("limits") or {})},
                sentence(texts, told) if (told := told_in(part)) else None,
            )
            for part in report["parts"]
        ),
        Sentence(row.note, "en") if row.note else None,
        again(texts, {"status": row.status, "report": row.report, "note": row.note}),
    )
