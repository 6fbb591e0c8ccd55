"""What the platform says reaches readers by name: the pages' words and the wire's stay together."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

import pytest

from afina.domain.events import JobEvent
from afina.domain.jobs import JobError
from afina.domain.sayings import ENGLISH, FAULTS, Said, say, text_of
from afina.evaluation.gate import GateReport, Part, not_measured
from afina.language.sentences import Sentence
from afina.language.strings import Texts, table
from afina.pipeline.gate import shown
from afina.store.gates import GateRow
from afina.web.sayings import fault, gate_words, heard

PLURAL = re.compile(r"\{(\w+):[^}]*\}")


def event(*said: Said, message: str = "wire") -> JobEvent:
    return JobEvent("ftevent-1", "ftjob-1", 0, "info", message, said=said)


@pytest.mark.parametrize("name", ENGLISH)
def test_a_sentence_on_the_wire_is_the_english_one_of_the_pages(name: str) -> None:
    wire = PLURAL.sub(r"{\1}", ENGLISH[name]).replace("_s} s", "_s}")
    wire = wire.removesuffix(": {why}")  # pages say what a rule means in place of its name
    assert table()[f"event.{name}"][0] == wire


def test_every_sentence_of_events_and_faults_is_one_that_the_platform_says() -> None:
    for key in table():
        section, _, name = key.partition(".")
        if section == "event" and not name.startswith(("file_", "what_")):
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


@pytest.mark.parametrize(
    ("name", "values", "one", "many"),
    [
        ("flagged_stay", {"setting": "x"}, "1 flagged row stays and is", "2 flagged rows stay and are"),
        ("flagged_stay_valid", {"setting": "x"}, "1 flagged row stays and is", "2 flagged rows stay and are"),
        ("left_out", {}, "1 row left out", "2 rows left out"),
        ("flagged_lines", {"lines": "7"}, "line 7", "lines 7"),
        ("abilities", {"all": 9}, "1 of 9 abilities of the base is", "2 of 9 abilities of the base are"),
    ],
)  # fmt: skip
def test_of_one_it_is_said_in_the_singular_in_every_language(
    name: str, values: dict[str, Any], one: str, many: str
) -> None:
    for n, start in ((1, one), (2, many)):
        assert say(name, n=n, **values).text.startswith(start)
        assert heard(Texts("en"), event(say(name, n=n, **values))).text.startswith(start)
    for language in ("es", "pt"):
        told = [heard(Texts(language), event(say(name, n=n, **values))).text for n in (1, 2)]
        assert told[0].replace("1 ", "2 ") != told[1]


def test_what_was_found_is_counted_by_the_names_that_the_reader_knows() -> None:
    said = say("moderated_found", file="training", n=2, rows=9, found="1 hate, 2 violence/graphic")
    assert heard(Texts("es"), event(said)).text.endswith("(1 odio, 2 violencia explícita)")
    said = say("redacted", file="training", n=2, rows=9, found="1 email, 3 nif")
    assert "(1 correio eletrônico, 3 NIF)" in heard(Texts("pt"), event(said)).text
    assert "Redacted 1 email, 3 nif in" in said.text


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


def test_every_language_tells_the_same_values_of_a_sentence() -> None:
    for key, forms in table().items():
        if key.partition(".")[0] in ("event", "fault"):
            english, *others = (
                {n for _, n, _, _ in Formatter().parse(form) if n} for form in forms
            )
            assert all(other == english for other in others), key


def test_reasons_follow_what_they_are_reasons_of() -> None:
    why = say("harm_unasked_rose", before_share=0.09, after_share=1.0, limit_share=0.05)
    lost = say("loss_rose", file="validation", rise_nats=0.256, limit_nats=0.25)
    told = (say("gate_holds", id="ft:m"), why, lost)
    assert text_of(told) == (
        "The gate held back ft:m: harmful answers to harmless prompts rose from 9% to 100% (limit "
        "5% more, for sure); the loss on validation rows rose by 0.26 nats a token over the base's "
        "(limit 0.25)"
    )
    found = heard(Texts("es"), event(*told)).text
    assert found.startswith("El control retuvo ft:m: las respuestas dañinas")
    assert "del 9\N{NO-BREAK SPACE}% al 100\N{NO-BREAK SPACE}%" in found
    assert found.endswith(
        "; la pérdida en las filas de validación subió 0,26 nats por token sobre la de la base "
        "(límite 0,25)"
    )


def test_a_run_that_goes_on_elsewhere_names_what_changed() -> None:
    changed = (
        say("elsewhere", step=12),
        say("changed", what="threads", before="2", now="1"),
        say("changed", what="torch", before="2.12", now="2.13"),
    )
    assert text_of(changed) == (
        "Resumed at step 12 where results may differ: threads 2 then, 1 now; torch 2.12 then, 2.13 "
        "now"
    )
    assert heard(Texts("es"), event(*changed)).text.endswith(
        ": hilos: antes 2, ahora 1; torch: antes 2.12, ahora 2.13"
    )


def gate(**report: Any) -> GateRow:
    return GateRow("ft:m", "ftjob-1", "hold", "default", "done", 0, report=report)


def test_the_gate_s_report_is_read_in_the_reader_s_language() -> None:
    faults = (say("memorised", found_share=0.5, limit_share=0.1),)
    parts = (Part("memorisation", True, faults=faults), not_measured("quality", say("no_rows")))
    made = GateReport("default", "", "failed", (faults[0].text,), parts, 1.0, 45.0, "")
    found = gate_words(Texts("pt"), gate(**shown(made)))
    assert found is not None
    assert [fault.language for fault in found.faults] == ["pt"]
    assert found.faults[0].text.startswith("50\N{NO-BREAK SPACE}% das respostas de treino")
    assert [told and told.text for _, told in found.parts] == [
        None,
        "não houve nenhuma linha, ou não houve tempo de medir",
    ]


def test_a_part_that_no_limit_can_hold_is_not_called_passed() -> None:
    parts = (Part("memorisation", True), Part("quality", True))
    limits = {"max_memorised": 1.0, "max_loss_rise": 0.1}
    made = GateReport("default", "", "passed", (), parts, 1.0, 45.0, "", limits)
    found = gate_words(Texts("es"), gate(**shown(made)))
    assert found is not None
    assert [part["only_told"] for part, _ in found.parts] == [True, False]


def test_a_report_from_before_its_sentences_had_names_is_shown_as_it_stands() -> None:
    part = {"name": "safety", "measured": False, "passed": True, "note": "no judge"}
    found = gate_words(Texts("pt"), gate(verdict="failed", reasons=["it insults"], parts=[part]))
    assert found is not None
    assert found.faults == (Sentence("it insults", "en"),)
    assert found.parts[0][1] == Sentence("no judge", "en")
    assert gate_words(Texts("pt"), None) is None
