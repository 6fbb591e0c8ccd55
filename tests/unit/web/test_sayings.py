"""What the platform says reaches readers by name: the pages' words and the wire's stay together."""

from __future__ import annotations

import re

import pytest

from afina.domain.events import JobEvent
from afina.domain.jobs import JobError
from afina.domain.sayings import ENGLISH, FAULTS, Said, say
from afina.web.sayings import fault, heard
from afina.web.strings import Texts, table

PLURAL = re.compile(r"\{(\w+):[^}]*\}")


def event(*said: Said, message: str = "wire") -> JobEvent:
    return JobEvent("ftevent-1", "ftjob-1", 0, "info", message, said=said)


@pytest.mark.parametrize("name", ENGLISH)
def test_a_sentence_on_the_wire_is_the_english_one_of_the_pages(name: str) -> None:
    wire = PLURAL.sub(r"{\1}", ENGLISH[name]).replace("_s} s", "_s}")
    assert table()[f"event.{name}"][0] == wire


def test_every_sentence_of_events_and_faults_is_one_that_the_platform_says() -> None:
    for key in table():
        section, _, name = key.partition(".")
        if section == "event" and not name.startswith("file_"):
            assert name in ENGLISH, key
        if section == "fault" and not name.startswith("code_") and name != "exactly":
            assert name in FAULTS, key
    assert all(f"fault.{name}" in table() for name in FAULTS)


def test_an_event_is_heard_in_the_readers_language_with_its_numbers() -> None:
    told = event(say("foreseen_tokens", expected=12345, came=12345), say("queued"))
    found = heard(Texts("es"), told)
    assert found.language == "es"
    assert "12.345" in found.text
    assert "espera su turno" in found.text
    assert heard(Texts("en"), told).text.startswith("Estimate and truth: 12,345")


def test_spans_sizes_and_files_are_written_as_the_language_does() -> None:
    texts = Texts("pt")
    assert (
        "2\N{NARROW NO-BREAK SPACE}min"
        in heard(texts, event(say("unforeseen_time", took_s=121.0))).text
    )
    assert (
        "1,2\N{NARROW NO-BREAK SPACE}GB"
        in heard(texts, event(say("unforeseen_memory", took_bytes=1.2e9))).text
    )
    assert "de treino" in heard(texts, event(say("moderated", file="training", n=1, rows=9))).text


def test_what_has_no_name_or_an_unknown_one_stays_english_and_says_so() -> None:
    assert heard(Texts("es"), event(message="Step 1/2")).language == "en"
    newer = event(Said("of_a_newer_version"), message="As on the wire")
    assert heard(Texts("es"), newer).text == "As on the wire"
    with pytest.raises(KeyError):
        say("of_a_newer_version")


def test_a_fault_says_line_rule_and_remedy_in_the_readers_language() -> None:
    said = (say("row", file="training", line=1273, rule="empty-content"),)
    error = JobError("invalid_file_format", "wire text", "training_file", said)
    found = fault(Texts("es"), error)
    assert "1.273" in found.text
    assert "Complétalo o descarta la fila" in found.text
    assert found.exactly == "wire text"
    assert fault(Texts("en"), error).text == "wire text"


def test_a_fault_without_a_sentence_is_told_by_its_code() -> None:
    found = fault(Texts("pt"), JobError("out_of_memory", "Step 3 does not fit."))
    assert found.language == "pt"
    assert "base menor" in found.text
    unknown = fault(Texts("pt"), JobError("of_tomorrow", "Something new."))
    assert (unknown.text, unknown.language, unknown.exactly) == ("Something new.", "en", None)
