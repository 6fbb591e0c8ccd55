"""Files of prompts, rows that are kept from the playground, and the span that a score covers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.web.site import Site, signed_in

from afina.errors import InvalidRequest
from afina.service.answer_scores import _last_span
from afina.service.prompt_files import MOST_PROMPTS, read_prompts

QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def test_a_table_gives_its_prompts_and_says_what_was_passed_over() -> None:
    table = "id,question,answer\n1,What?,This.\n2,,x\n3,Why?,\n".encode("cp1252")
    found = read_prompts([table], "p.csv")
    assert (found.prompt_column, found.expected_column) == ("question", "answer")
    assert [one.expected for one in found.prompts] == ["This.", None]
    assert found.rows == len(found.prompts) + found.passed_over + found.beyond == 3
    other = read_prompts([table], "p.csv", prompt="answer", expected="")
    assert [one.expected for one in other.prompts] == [None, None]
    with pytest.raises(InvalidRequest, match="nothere"):
        read_prompts([table], "p.csv", prompt="nothere")


def test_chats_lose_their_last_answer_and_stop_at_the_limit() -> None:
    row = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}\n'
    found = read_prompts([row] * (MOST_PROMPTS + 3), "p.jsonl")
    assert (len(found.prompts), found.beyond) == (MOST_PROMPTS, 3)
    assert found.prompts[0].expected == "a"
    assert len(found.prompts[0].messages) == 1
    with pytest.raises(InvalidRequest):
        read_prompts([b'{"messages":[]}\n'], "p.jsonl")
    with pytest.raises(InvalidRequest):
        read_prompts([], "p.csv")


def test_a_score_covers_the_last_answer_alone() -> None:
    assert _last_span([False, True, False, True, True, False]) == range(3, 5)
    assert not _last_span([False, False])


@pytest.mark.long
def test_kept_rows_gather_in_one_draft_and_only_there(site: Site) -> None:
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    begun = site.ask("POST", "/playground/rows", headers=headers, json={
        "messages": [QUESTION, ANSWER]}).json()  # fmt: skip
    more = {"messages": [QUESTION, ANSWER | {"content": "<b>é</b>"}], "draft": begun["id"]}
    assert site.ask("POST", "/playground/rows", json=more, headers=headers).json()["rows"] == 2
    rows = site.ask("GET", f"{begun['href']}/rows").json()
    assert [row["messages"][1]["content"] for row in rows["rows"]] == ["a", "<b>é</b>"]
    table = site.bring("t.csv", b"question,answer\nq,a\n").rpartition("/")[2]
    known = site.ask("GET", "/playground/rows").json()["drafts"]
    assert [draft["id"] for draft in known] == [begun["id"]]
    for wrong in (
        {"messages": [QUESTION, ANSWER], "draft": table},
        {"messages": [QUESTION]},
        {"messages": [QUESTION, ANSWER | {"extra": 1}]},
        {"messages": "q"},
    ):
        answer = site.ask("POST", "/playground/rows", json=wrong, headers=headers)
        assert answer.status_code == 400, wrong
    gone = {"messages": [QUESTION, ANSWER], "draft": "draft-" + "x" * 24}
    assert site.ask("POST", "/playground/rows", json=gone, headers=headers).status_code == 404
    assert site.ask("POST", "/playground/rows", json=more).status_code == 403


@pytest.mark.long
def test_rows_carry_marks_and_the_page_says_what_a_tune_would_take(site: Site) -> None:
    draft = site.bring("p.csv", b"question,answer\nq,write to ana@example.com\nq2,a\n")
    told = site.ask("GET", f"{draft}/marks?what=personal").json()
    assert told["marks"] == {"1": ["e-mail"]}
    assert "ana@" not in str(told)
    moderated = site.ask("GET", f"{draft}/marks?what=moderation").json()
    assert moderated["marks"] == {}
    assert moderated["reason"], "without an engine the page says why there are no marks"
    assert "≤2" in site.ask("GET", f"{draft}/lengths").text
    assert site.ask("GET", f"{draft}/estimate?n_epochs=5").status_code == 200
    assert "whole number from 1 to 50" in site.ask("GET", f"{draft}/estimate?n_epochs=0").text


@pytest.mark.long
def test_budget_and_people_are_set_and_taken_back(site: Site) -> None:
    form = {"form_token": site.token()}
    assert site.ask("POST", "/settings/budget", data=form | {"dollars": "12.50"}).status_code == 303
    assert 'value="12.50"' in site.ask("GET", "/settings").text
    assert site.ask("POST", "/settings/budget", data=form | {"dollars": "1.234"}).status_code == 400
    assert site.ask("POST", "/settings/budget", data=form).status_code == 303
    assert 'value="12.50"' not in site.ask("GET", "/settings").text
    person = form | {"email": "bea@example.com", "role": "reader"}
    assert site.ask("POST", "/settings/people", data=person).status_code == 303
    assert "bea@example.com" in site.ask("GET", "/settings").text
    assert site.ask("POST", "/settings/people", data=person).status_code == 409
    wrong = form | {"model": "none", "requests_per_minute": "1"}
    assert site.ask("POST", "/settings/limits", data=wrong).status_code == 404


@pytest.mark.long
def test_the_form_of_a_job_refuses_what_is_out_of_range(site: Site) -> None:
    form = {"form_token": site.token(), "file": "file-x", "model": "m", "method": "dpo"}
    for wrong in (
        {"beta": "much"},
        {"kind": "last_layers", "layers": "0"},
        {"patience": "51"},
        {"rank": "x"},
        {"kind": "nothing"},
    ):
        answer = site.ask("POST", "/tune", data=form | wrong)
        assert answer.status_code == 400, wrong
        kept = f'value="{next(iter(wrong.values()))}"'
        assert "kind" in wrong or kept in answer.text, "the form keeps what was written"
