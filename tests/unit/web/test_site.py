"""The way in, what another site may not do, and that a text never becomes markup."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.platforms import BASE, ROW, add_base, publish, run_to_running, start_job
from tests.unit.web.site import HOST, Site, signed_in

from afina.service import draft_rows
from afina.service.card_page import POLICY
from afina.service.files import upload_file
from afina.service.keys import authenticate, create_key, revoke_key
from afina.service.sessions import LINK_S, new_link, resume_session
from afina.web.files import static_files
from afina.web.pages.usage import plain_cell

pytestmark = pytest.mark.long

BARD = Path(__file__).parents[3] / "examples" / "bard" / "questions.csv"
PLACES = ("/", "/data", "/tune", "/jobs", "/models", "/playground", "/usage", "/settings")
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{7*7}}{% raw %}",
    "</textarea><svg/onload=alert(1)>",
    "javascript:alert(1)",
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def test_without_a_session_every_page_leads_to_the_sign_in_and_back(tmp_path: Path) -> None:
    site = Site(tmp_path)
    answer = site.ask("GET", "/usage?days=7")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fusage%3Fdays%3D7"
    assert site.ask("POST", "/sign-in", data={"key": "sk-afina-wrong"}).status_code == 401
    assert "afina_session" not in site.cookies
    entered = site.ask("POST", "/sign-in", data={"key": site.key, "next": "//evil.test/"})
    assert entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    site.platform.close()


def test_a_forged_cookie_and_a_revoked_key_open_nothing(site: Site) -> None:
    first = resume_session(site.platform, site.cookies["afina_session"]).caller
    made, secret = create_key(site.platform, first, "mine")
    site.sign_in(secret)
    good = site.cookies["afina_session"]
    site.cookies["afina_session"] = good[:-1] + ("A" if good[-1] != "A" else "B")
    assert site.ask("GET", "/").status_code == 303
    site.cookies["afina_session"] = good
    assert site.ask("GET", "/").status_code == 200
    revoke_key(site.platform, first, made.id)
    assert site.ask("GET", "/").status_code == 303


def test_a_link_opens_once_and_not_for_ever(tmp_path: Path) -> None:
    site = Site(tmp_path)
    clock, ids = site.platform.clock, site.platform.ids
    link = new_link(tmp_path, clock, ids)
    assert site.ask("GET", link).headers["location"] == "/"
    site.cookies.clear()
    assert site.ask("GET", link).status_code == 401
    late = new_link(tmp_path, clock, ids)
    clock.advance(LINK_S + 1)  # type: ignore[attr-defined]
    assert site.ask("GET", late).status_code == 401
    assert site.ask("GET", "/enter?token=../../api-key").status_code == 401
    site.platform.close()


def test_a_form_needs_its_session_s_token_and_this_site_s_page(site: Site) -> None:
    token = site.token()
    assert site.ask("POST", "/settings/keys", data={"name": "k"}).status_code == 403
    wrong = {"name": "k", "form_token": "x" * len(token)}
    assert site.ask("POST", "/settings/keys", data=wrong).status_code == 403
    right = {"name": "k", "form_token": token}
    for headers in ({"origin": "https://evil.test"}, {"origin": "null"},
                    {"sec-fetch-site": "cross-site"}):  # fmt: skip
        refused = site.ask("POST", "/settings/keys", data=right, headers=headers)
        assert refused.status_code == 403
    made = site.ask("POST", "/settings/keys", data=right, headers={"origin": HOST})
    assert made.status_code == 200
    assert "sk-afina-" in made.text


def test_every_page_has_the_strict_policy_and_nothing_inline(site: Site) -> None:
    draft = site.bring("bard.csv", BARD.read_bytes())
    for path in (*PLACES, draft, "/jobs/compare", "/nowhere"):
        answer = site.ask("GET", path, headers={"accept": "text/html"})
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", answer.text), path
        for script in re.findall(r"<script[^>]*>", answer.text):
            assert ' src="/static/' in script, path


def test_a_models_card_opens_from_its_page_in_the_readers_language_and_runs_nothing(
    site: Site, tmp_path: Path
) -> None:
    add_base(site.platform, BASE)
    caller = authenticate(site.platform, site.key)
    start_job(site.platform, caller)
    name = publish(site.platform, run_to_running(site.platform), tmp_path).fine_tuned_model
    link = f"/models/card?name={quote(str(name), safe='')}"
    spanish = {"accept-language": "es-MX"}
    shown = site.ask("GET", f"/models/show?name={name}", headers=spanish).text
    assert f'href="{link}"' in shown.replace("&amp;", "&")
    card = site.ask("GET", link, headers=spanish)
    assert '<html lang="es">' in card.text
    assert "<script" not in card.text
    assert card.headers.get_list("content-security-policy") == [POLICY]


def test_no_page_weighs_more_than_150_kb(site: Site) -> None:
    everything = site.ask("GET", "/")
    page = len(gzip.compress(everything.content))
    static = [name for name, file in static_files().items() if f"/{name}" in everything.text]
    assert page + sum(len(static_files()[name].packed) for name in static) < 150_000
    job = sum(len(f.packed) for name, f in static_files().items() if not name.endswith(".csv"))
    assert job < 110_000, "all scripts and styles together"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_text_of_a_user_is_never_markup(site: Site, payload: str) -> None:
    name = payload.replace("/", "_") + ".csv"
    draft = site.bring(name, f'question,answer\n"{payload}",a\n'.replace('"">', '"').encode())
    for path in ("/data", draft):
        text = site.ask("GET", path).text
        assert payload not in text or not set("<>'\"") & set(payload)
        assert "<svg/onload" not in text
        assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)
    refused = site.ask("GET", f"/jobs?which={payload}")
    assert "<script>alert" not in refused.text


def test_the_bard_s_sheet_is_read_mended_and_saved(site: Site) -> None:
    draft = site.bring("questions.csv", BARD.read_bytes())
    assert "cp1252" in site.ask("GET", draft).text
    bad = site.ask("GET", f"{draft}/rows?which=bad").json()
    assert [row["n"] for row in bad["rows"]] == [26]
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    answer = '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"Marry."}]}'
    mended = site.ask("POST", f"{draft}/rows/26", json={"text": answer}, headers=headers)
    assert mended.json() == {"bad": 0, "usable": 51}
    undone = site.ask("POST", f"{draft}/undo", headers=headers)
    assert undone.json() == {"bad": 1, "usable": 50}
    dropped = site.ask("POST", f"{draft}/drop", json={"rows": "bad"}, headers=headers)
    assert dropped.json() == {"bad": 0, "usable": 50}
    form = {"form_token": site.token(), "name": "bard.jsonl"}
    saved = site.ask("POST", f"{draft}/save", data=form)
    assert saved.headers["location"].startswith("/tune?file=file-")
    assert "bard.jsonl" in site.ask("GET", saved.headers["location"]).text


def test_rows_that_contradict_each_other_name_each_other_until_one_is_dropped(site: Site) -> None:
    asked = [f"What is the tariff of parcel number {n * 7919}?,It is {n} euros." for n in range(12)]
    again = asked[3].replace("It is 3 euros", "Nobody knows that")
    sheet = "\n".join(["question,answer", *asked, again])
    draft = site.bring("tariffs.csv", sheet.encode())
    site.cookies["afina_language"] = "es"
    found = site.ask("GET", f"{draft}/rows?which=findings").json()["rows"]
    assert [row["n"] for row in found] == [13]
    (told,) = found[0]["findings"]
    assert told["rule"] == "contradiction"
    assert told["text"].startswith("Fila 4: Otra fila pregunta lo mismo")
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    site.ask("POST", f"{draft}/drop", json={"rows": [4]}, headers=headers)
    assert site.ask("GET", f"{draft}/rows?which=findings").json()["rows"] == []


def test_a_large_draft_says_that_its_rows_are_not_compared(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = "question,answer\n" + "".join(f"Why {n}?,Because of {n}.\n" for n in range(12))
    few = site.bring("few.csv", sheet.encode())
    assert "not compared" not in site.ask("GET", f"{few}/summary").text
    monkeypatch.setattr(draft_rows, "COMPARED_ROWS", 11)
    many = site.bring("many.csv", sheet.encode())
    assert "not compared" in site.ask("GET", f"{many}/summary").text


def test_a_draft_of_another_project_is_not_there(site: Site) -> None:
    draft = site.bring("questions.csv", BARD.read_bytes())
    path = site.platform.settings.data / "drafts" / draft.rpartition("/")[2] / "draft.json"
    text = path.read_text()
    path.write_text(re.sub(r'"project_id": "[^"]+"', '"project_id": "proj_other"', text))
    assert site.ask("GET", draft).status_code == 404
    assert site.ask("GET", "/data/draft-../../api-key").status_code == 404


def test_a_spreadsheet_reads_no_formula_into_an_export() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1"):
        assert plain_cell(text) == f"'{text}"
    assert plain_cell("ft:base:org:name") == "ft:base:org:name"


def test_jobs_without_a_name_are_told_apart_by_their_files_and_found_by_them(site: Site) -> None:
    add_base(site.platform, BASE)
    caller = authenticate(site.platform, site.key)
    for name in ("claims.jsonl", "<b>letters.jsonl"):
        file = upload_file(site.platform, caller, [ROW * 10], name, "fine-tune")
        start_job(site.platform, caller, training_file=file.id)
    for page in ("/", "/jobs"):
        shown = site.ask("GET", page).text
        assert "claims.jsonl" in shown
        assert "&lt;b&gt;letters.jsonl" in shown
    found = site.ask("GET", "/jobs?q=Claims").text
    assert "claims.jsonl" in found
    assert "letters.jsonl" not in found
