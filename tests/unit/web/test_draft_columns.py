"""The columns of a draft as their reader chooses them: conversations of a log, and what is refused."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.web.site import Site, signed_in

SHEET = b"pregunta,respuesta,otra\nuno,A,X\ndos,B,Y\n"
LOG = (
    b"hilo_nuestro,quien,texto,turno\n"
    b"7,agente,Digame,2\n7,cliente,Hola,1\n8,cliente,Otra,1\n8,agente,Vale,2\n,cliente,Nadie,1\n"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def contents(site: Site, place: str) -> list[list[str]]:
    found = site.ask("GET", f"{place}/rows").json()["rows"]
    return [[message["content"] for message in row["messages"]] for row in found]


def test_a_log_becomes_conversations_by_the_column_that_is_chosen(site: Site) -> None:
    place = site.bring("log.csv", LOG)
    assert "Choose the column that says which conversation" in site.ask("GET", place).text
    chosen = {"form_token": site.token(), "group": "hilo_nuestro"}
    site.ask("POST", f"{place}/columns", data=chosen)
    assert contents(site, place) == [["Digame", "Hola"], ["Otra", "Vale"]]
    page = site.ask("GET", place).text
    assert "(the conversation is not named)" in page
    assert "puts 1 of the conversations in another order" in page
    site.ask("POST", f"{place}/columns", data=chosen | {"order": "turno"})
    assert contents(site, place) == [["Hola", "Digame"], ["Otra", "Vale"]]
    assert "in another order" not in site.ask("GET", place).text


def test_a_log_whose_columns_say_what_they_are_becomes_conversations_at_once(site: Site) -> None:
    place = site.bring("log.csv", LOG.replace(b"hilo_nuestro", b"conversation_id"))
    assert contents(site, place) == [["Digame", "Hola"], ["Otra", "Vale"]]


def test_questions_and_answers_of_one_conversation_become_one_chat(site: Site) -> None:
    place = site.bring("t.csv", b"case,question,answer\n1,a,b\n1,c,d\n2,e,f\n")
    assert len(contents(site, place)) == 3
    chosen = {"user": "question", "assistant": "answer", "group": "case"}
    site.ask("POST", f"{place}/columns", data=chosen | {"form_token": site.token()})
    assert contents(site, place) == [["a", "b", "c", "d"], ["e", "f"]]


def test_one_column_for_both_is_refused_and_what_was_chosen_holds(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    before = contents(site, draft)
    form = {"form_token": site.token(), "user": "pregunta", "assistant": "pregunta"}
    told = html.unescape(site.ask("POST", f"{draft}/columns", data=form).text)
    assert "the same column" in told or "la misma columna" in told
    assert contents(site, draft) == before
