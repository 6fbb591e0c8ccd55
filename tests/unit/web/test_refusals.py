"""What is refused is told in the reader's language, with the wire's words under it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.web.site import Site, signed_in

from afina.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from afina.web.refusals import as_json, refused
from afina.web.strings import Texts

MISSING = ModelNotFound("The model `x` does not exist.", remedy="See GET /v1/models.")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def spanish() -> Texts:
    return Texts("es")


def test_a_code_or_a_status_has_a_sentence_and_the_wires_words_stay() -> None:
    told = refused(spanish(), MISSING)
    assert (told.language, told.exactly) == ("es", MISSING.one_line())
    assert told.text.startswith("Ese modelo no está aquí")
    for error in (NotFound("n"), Conflict("c"), Unavailable("u"), QuotaExceeded("q")):
        assert refused(spanish(), error).language == "es", error
    assert refused(Texts("en"), MISSING).exactly is None


def test_what_is_wrong_in_one_of_many_ways_keeps_its_own_words() -> None:
    error = InvalidRequest("'n' must be 1 to 8.", param="n", code="invalid_value")
    told = refused(spanish(), error)
    assert (told.text, told.language, told.exactly) == (error.one_line(), "en", None)
    assert as_json(spanish(), error)["lang"] == "en"


def test_a_script_is_told_the_language_of_each_part() -> None:
    told = as_json(spanish(), MISSING)
    assert told["lang"] == "es"
    assert told["remedy"] is None
    assert told["exactly"] == MISSING.one_line()
    english = as_json(Texts("en"), MISSING)
    assert (english["message"], english["remedy"]) == (MISSING.message, MISSING.remedy)
    assert "exactly" not in english


def test_a_page_that_is_not_there_says_so_in_portuguese(site: Site) -> None:
    site.ask("POST", "/language", data={"language": "pt", "form_token": site.token()})
    page = site.ask("GET", "/jobs/ftjob-nothing").text
    assert re.search(r'<p lang="pt">Isto não está aqui', page)
    assert 'lang="en"' in page, "the wire's own words stand under it"
