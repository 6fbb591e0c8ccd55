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
from afina.language.strings import Texts
from afina.web.refusals import as_json, refused

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


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.csv", b"%PDF-1.7\n", "É um documento de texto"),
        ("a.csv", b"\x1f\x8b" + bytes(30), "É um arquivo compactado"),
        ("a.tgz", b"x", "É um arquivo compactado"),
        ("a.csv", b"\x89PNG\r\n" + bytes(30), "É uma imagem"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(30), "É uma planilha de um tipo"),
        ("a.csv", b"PAR1" + bytes(30), "O arquivo é de outro tipo"),
        ("a.csv", bytes(range(1, 256)), "Não há texto neste arquivo"),
        ("a.xlsx", b"PK\3\4", "O arquivo está danificado"),
        ("a.parquet", b"PAR1", "O arquivo está danificado"),
        ("a.csv", b"", "O arquivo está vazio"),
        ("a.jsonl", b"\n\n", "O arquivo está vazio"),
        ("a.json", b"[1]", "Não foram encontradas linhas"),
        ("a.csv", b'pergunta,resposta\na,"b\n', "Na tabela há aspas que não fecham"),
        ("a.csv", "\u00e9\u00e9\u00e9,a\n".encode() * 9 + b"\xe9,a\n", "As letras deste arquivo"),
        ("a.json", b"[{]", "O arquivo diz ser JSON"),
    ],
)
def test_why_a_file_cannot_be_read_is_told_in_the_readers_language(
    name: str, raw: bytes, said: str, site: Site
) -> None:
    site.ask("POST", "/language", data={"language": "pt", "form_token": site.token()})
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    answer = site.ask("POST", "/data", params={"name": name}, content=raw, headers=headers)
    told = answer.json()["error"]
    assert answer.status_code == 400
    assert (told["message"][: len(said)], told["lang"]) == (said, "pt")
    assert told["exactly"], "the wire's words name the file and the place"
