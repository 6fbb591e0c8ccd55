"""The page of kept answers: what was asked with `store: true` becomes rows of a draft."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.web.site import Site, signed_in

from afina.service.keys import authenticate
from afina.service.stored import keep_completion


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def keep(site: Site, number: int, answer: str, reason: str = "stop", label: str = "") -> str:
    id = f"chatcmpl-{number:024d}"
    asked = {"messages": [{"role": "user", "content": f"Question {number}?"}]}
    choice = {"finish_reason": reason, "message": {"role": "assistant", "content": answer}}
    made = {"id": id, "created": 1_700_000_000 + number, "model": "tiny", "choices": [choice]}
    caller = authenticate(site.platform, site.key)
    keep_completion(
        site.platform, caller, asked, made | {"metadata": {"team": label} if label else {}}
    )
    return id


def test_answers_that_a_filter_picks_become_a_draft_and_cut_ones_are_counted(site: Site) -> None:
    assert "/data/answers" not in site.ask("GET", "/data").text
    for number in range(3):
        keep(site, number, f"Answer {number}.", label="support")
    keep(site, 3, "Answer that was c", "length", label="support")
    keep(site, 4, "Somebody else's.", label="sales")
    assert 'href="/data/answers"' in site.ask("GET", "/data").text
    shown = site.ask("GET", "/data/answers?label=team%3Dsupport").text
    assert "Answer 2." in shown
    assert "Somebody" not in shown
    form = {"form_token": site.token(), "model": "tiny", "label": "team=support"}
    begun = site.ask("POST", "/data/answers/draft", data=form)
    draft = begun.headers["location"]
    rows = site.ask("GET", f"{draft}/rows?which=all").json()["rows"]
    assert [row["messages"][1]["content"] for row in rows] == [f"Answer {n}." for n in range(3)]
    assert "(cut by their limit of tokens)" in site.ask("GET", draft).text


def test_older_answers_are_a_page_further_and_one_can_be_deleted(site: Site) -> None:
    first = keep(site, 0, "The oldest.")
    for number in range(1, 51):
        keep(site, number, f"Answer {number}.")
    shown = site.ask("GET", "/data/answers").text
    assert "The oldest." not in shown
    after = shown.partition("after=")[2].partition('"')[0]
    assert "The oldest." in site.ask("GET", f"/data/answers?after={after}").text
    site.ask("POST", f"/data/answers/{first}/delete", data={"form_token": site.token()})
    assert "after=" not in site.ask("GET", "/data/answers").text


def test_a_label_that_is_none_is_refused_by_name(site: Site) -> None:
    refused = site.ask("GET", "/data/answers?label=support")
    assert refused.status_code == 400
    assert "A label is a key, an equals sign and a value." in refused.text


def test_a_kept_answer_is_never_markup(site: Site) -> None:
    keep(site, 0, "<img src=x onerror=alert(1)>", label="<b>")
    shown = site.ask("GET", "/data/answers").text
    assert "<img" not in shown
    assert "&lt;img" in shown


def test_deleting_an_answer_leaves_the_reader_where_they_were(site: Site) -> None:
    first = keep(site, 0, "The only one.", label="support")
    for number in range(1, 53):
        keep(site, number, f"Answer {number}.", label="sales & more")
    place = "/data/answers?model=tiny&label=team%3Dsales+%26+more&after=chatcmpl-" + f"{3:024d}"
    shown = site.ask("GET", place).text
    assert 'name="after" value="chatcmpl-' in shown
    form = {
        "form_token": site.token(),
        "model": "tiny",
        "label": "team=sales & more",
        "after": f"chatcmpl-{3:024d}",
    }
    gone = site.ask("POST", f"/data/answers/chatcmpl-{2:024d}/delete", data=form)
    assert gone.headers["location"] == place
    only = {"form_token": site.token(), "label": "team=support"}
    gone = site.ask("POST", f"/data/answers/{first}/delete", data=only)
    assert gone.headers["location"] == "/data/answers?label=team%3Dsupport"
    empty = site.ask("GET", gone.headers["location"]).text
    assert "<option selected>team=support</option>" in empty, "the filter still says what it is"
    assert "No kept answer is like that." in empty
