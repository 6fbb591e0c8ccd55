"""What is said of a file beside its rows is said on the page too, in the reader's language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from tests.unit.web.site import Site, signed_in

from afina.data.remarks import ENGLISH, Remark, remark
from afina.language.strings import Texts, table
from afina.web.remarks import ELSEWHERE, reason_in, remarks_in


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


@pytest.mark.parametrize("name", ENGLISH)
def test_every_remark_has_words_on_the_page_or_a_place_of_its_own_there(name: str) -> None:
    key = f"note.{name}"
    assert (key in table()) != (name in ELSEWHERE)
    values = {n for _, n, _, _ in Formatter().parse(ENGLISH[name]) if n}
    for form in table().get(key, ()):
        assert {n for _, n, _, _ in Formatter().parse(form) if n} <= values


def test_every_sentence_of_the_section_is_a_remark() -> None:
    names = {key.removeprefix("note.") for key in table() if key.startswith("note.")}
    assert names - {"at"} <= set(ENGLISH)
    with pytest.raises(KeyError):
        remark("of_a_newer_version")


def test_of_one_a_remark_speaks_in_the_singular() -> None:
    one, two = (remark("zeros", n=n, line=7) for n in (1, 2000))
    assert one.text == "The character U+0000 stands in 1 row, the first in line 7: look whether its text is whole."  # fmt: skip
    assert two.text.startswith("The character U+0000 stands in 2,000 rows, the first in line 7:")
    told = remarks_in(Texts("es"), [one, two, "of an older version", remark("role", role="x", n=1)])
    assert [text.text.split(",")[0] for text in told] == [
        "El carácter U+0000 está en 1 fila",
        "El carácter U+0000 está en 2.000 filas",
    ]


def test_a_reason_without_words_here_is_shown_as_it_is() -> None:
    assert reason_in(Texts("pt"), "empty row").text == "linha vazia"
    other = reason_in(Texts("pt"), "a message holds what is no text (image)")
    assert (other.text, other.language) == ("a message holds what is no text (image)", "en")
    newer = Remark("dropped", {"reason": "empty row", "lines": "4, 7"})
    (told,) = remarks_in(Texts("pt"), [newer])
    assert told.text == "Deixado de lado (linha vazia): linha 4, 7."


def test_the_page_says_what_the_command_says_of_a_file(site: Site) -> None:
    sheet = b"Informe\n\npregunta,respuesta,nota\nuno,a,x\n,,\ndos,b\x00,y\n"
    page = site.ask("GET", site.bring("casos.csv", sheet)).text
    for told in (
        "The names of columns stand in line 3",
        "No message is made of the columns &#39;nota&#39;",
        "Passed over (empty row): line 5.",
        "U+0000 stands in 1 row, the first in line 6",
    ):
        assert told in page
    page = site.ask("GET", site.bring("log.csv", b"chat,quien,texto\n1,cliente,Hi\n")).text
    assert "The table may be a log of messages: &#39;quien&#39; says who speaks" in page
    assert "--group" not in page
    thought = {"role": "model", "parts": [{"text": "?", "thought": True}, {"text": "Yes"}]}
    turns = [{"role": "user", "parts": [{"text": "Hi"}]}, thought]
    raw = json.dumps({"contents": turns}).encode() + b"\nbroken\n"
    page = site.ask("GET", site.bring("rows.jsonl", raw)).text
    assert "Thinking stands once, the first in line 1; it was left out" in page
