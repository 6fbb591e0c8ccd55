"""Forms: what is wrong stands by its field, in the reader's language, and what was typed stays."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest
from tests.live import BASE
from tests.tiny import make_tiny_model
from tests.unit.web.site import Site, signed_in

from afina.errors import InvalidRequest
from afina.language.strings import Texts
from afina.service.files import upload_file
from afina.service.keys import authenticate
from afina.web.pages.tune_faults import fault_of

pytestmark = pytest.mark.long


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    toml = '[integrations.mlflow]\ntracking_uri = "http://127.0.0.1:9"\n'
    (tmp_path / "afina.toml").write_text(toml)
    with signed_in(tmp_path) as site:
        yield site


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("mlflow", "x" * 251, "250 caracteres"),
        ("suffix", "***", "64 caracteres"),
        ("seed", "-1", "2.147.483.647"),
        ("n_epochs", "99", "de 1 a 50"),
        ("learning_rate_multiplier", "mucho", "mayor que 0"),
        ("rank", "0", "número entero"),
        ("patience", "x", "número entero"),
    ],
)
def test_a_wrong_field_is_named_beside_it_and_everything_typed_stays(
    site: Site, field: str, typed: str, said: str
) -> None:
    site.cookies["afina_language"] = "es"
    form = {
        "form_token": site.token(), "file": "file-1", "model": "base", "suffix": "voz",
        "key0": "dueño", "value0": "Ana", "mlflow": "voz", "learning_rate_multiplier": "0,5",
    } | {field: typed}  # fmt: skip
    answer = site.ask("POST", "/tune", data=form)
    assert answer.status_code == 400
    beside = answer.text.partition(f'id="{field}-wrong" lang="es">')[2].partition("</p>")[0]
    assert said in beside
    shown = answer.text.partition(f'id="{field}"')[2].partition(">")[0]
    assert 'aria-invalid="true"' in shown
    assert f'aria-describedby="{field}-wrong' in shown
    for name, value in form.items():
        if name not in ("form_token", "file", "model"):
            assert f'value="{value}"' in answer.text, name


def test_an_error_of_another_kind_stays_in_the_words_of_the_api() -> None:
    found = fault_of(Texts("es"), InvalidRequest("There is no such file.", param="training_file"))
    assert (found.field, found.text, found.language) == ("file", "There is no such file.", "en")
    assert fault_of(Texts("pt"), InvalidRequest("No.")).field is None
    second = fault_of(Texts("pt"), InvalidRequest("x", param="integrations[1].wandb.project"))
    assert (second.field, second.language) == ("wandb", "pt")


def test_a_table_of_unknown_columns_opens_and_lets_them_be_chosen(site: Site) -> None:
    draft = site.bring("soporte.csv", b"Caso,Dicen,Decimos\n1,Hola,Buenas\n")
    page = site.ask("GET", draft)
    assert page.status_code == 200
    assert "<th>Dicen</th>" in page.text
    chosen = {"form_token": site.token(), "user": "Dicen", "assistant": "Decimos"}
    site.ask("POST", f"{draft}/columns", data=chosen)
    rows = site.ask("GET", f"{draft}/rows").json()["rows"]
    assert [m["content"] for m in rows[0]["messages"]] == ["Hola", "Buenas"]


def test_columns_are_guessed_by_a_word_and_the_reader_may_choose_others(site: Site) -> None:
    draft = site.bring("casos.csv", b"No,Pregunta del cliente,Respuesta\n1,Hola,Buenas\n")
    page = site.ask("GET", draft).text
    assert "<option selected>Pregunta del cliente</option>" in page
    assert site.ask("GET", f"{draft}/rows").json()["total"] == 1
    half = site.bring("otros.csv", b"No,Dicen,Respuesta\n1,Hola,Buenas\n")
    assert "<option selected>Respuesta</option>" in site.ask("GET", half).text


def test_of_several_sheets_another_can_be_read(site: Site) -> None:
    book, raw = openpyxl.Workbook(), io.BytesIO()
    for title, answer in (("Uno", "A."), ("Dos", "B.")):
        sheet = book.create_sheet(title)
        sheet.append(["Question", "Answer"])
        sheet.append(["Q?", answer])
    book.remove(book.worksheets[0])
    book.save(raw)
    draft = site.bring("libro.xlsx", raw.getvalue())
    assert "<option selected>Uno</option><option>Dos</option>" in site.ask("GET", draft).text
    site.ask("POST", f"{draft}/columns", data={"form_token": site.token(), "sheet": "Dos"})
    rows = site.ask("GET", f"{draft}/rows").json()["rows"]
    assert rows[0]["messages"][1]["content"] == "B."
    gone = {"form_token": site.token(), "sheet": "Tres"}
    assert site.ask("POST", f"{draft}/columns", data=gone).status_code == 400


def test_a_file_that_cannot_be_read_is_named_as_its_owner_knows_it(site: Site) -> None:
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    given = {"params": {"name": "mis datos.xlsx"}, "content": b"no", "headers": headers}
    told = site.ask("POST", "/data", **given).json()["error"]["message"]
    assert "mis datos.xlsx" in told
    assert "source" not in told


def test_what_is_wrong_is_said_beside_the_button_and_not_only_after_it(site: Site) -> None:
    form = {"form_token": site.token(), "file": "file-x", "model": "m"}
    headers = {"accept-language": "es"}
    for wrong, said in (({"n_epochs": "0"}, "de 1 a 50"), ({"suffix": "¿?"}, "64 caracteres")):
        told = site.ask("POST", "/tune/estimate", data=form | wrong, headers=headers).text
        assert said in told
        assert "<dl" not in told, "no time is promised for what cannot be"


def test_pairs_lead_to_the_method_for_pairs_and_another_is_warned_of(site: Site) -> None:
    make_tiny_model(site.platform.settings.models / BASE, base_id=BASE)
    pair = {
        "input": {"messages": [{"role": "user", "content": "Say it."}]},
        "preferred_output": [{"role": "assistant", "content": "Well said."}],
        "non_preferred_output": [{"role": "assistant", "content": "Said badly."}],
    }
    lines = "\n".join(json.dumps(pair) for _ in range(10))
    draft = site.bring("pairs.jsonl", lines.encode())
    form = {"form_token": site.token(), "name": "pairs.jsonl"}
    place = site.ask("POST", f"{draft}/save", data=form).headers["location"]
    assert place.endswith("&method=dpo")
    assert '<option value="dpo" selected>' in site.ask("GET", place).text
    file = place.partition("file=")[2].partition("&")[0]
    form = {"form_token": site.token(), "file": file, "model": BASE, "method": "supervised"}
    told = site.ask("POST", "/tune/estimate", data=form).text
    assert "not for this method. They are for this one: Preferences (DPO)" in told
    told = site.ask("POST", "/tune/estimate", data=form | {"method": "dpo"}).text
    assert "not for this method" not in told
    assert "<dl" in told


def test_a_file_with_errors_leads_to_a_copy_of_it_from_the_form(site: Site) -> None:
    make_tiny_model(site.platform.settings.models / BASE, base_id=BASE)
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    lines = "\n".join(json.dumps(one) for one in (good, row))
    caller = authenticate(site.platform, site.key)
    file = upload_file(site.platform, caller, iter([lines.encode()]), "bad.jsonl", "fine-tune")
    form = {"form_token": site.token(), "file": file.id, "model": BASE}
    told = site.ask("POST", "/tune/estimate", data=form).text
    assert f'form="copy" formaction="/data/files/{file.id}/open"' in told
    assert '<form id="copy" method="post">' in site.ask("GET", "/tune").text
    opened = site.ask("POST", f"/data/files/{file.id}/open", data={"form_token": site.token()})
    assert opened.headers["location"].startswith("/data/draft-")


def test_a_wrong_key_and_a_used_link_are_told_in_the_reader_s_language(tmp_path: Path) -> None:
    fresh = Site(tmp_path)
    headers = {"accept-language": "es"}
    wrong = fresh.ask("POST", "/sign-in", data={"key": "sk-none"}, headers=headers)
    assert wrong.status_code == 401
    assert "Esta clave no abre nada aquí." in wrong.text
    assert "Incorrect" not in wrong.text
    used = fresh.ask("GET", "/enter?token=none", headers=headers)
    assert "Este enlace ya no abre nada" in used.text
    fresh.platform.close()
