"""Drafts as their reader meets them: what was mended stays, letters can be set right, rows of every
kind are shown as what is said in them."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from tests.platforms import first_caller
from tests.unit.web.site import Site, signed_in

from afina.data.limits import CheckLimits
from afina.service import draft_rows, drafts
from afina.web.chats import readable_json

SHEET = b"pregunta,respuesta,otra\nuno,A,X\ndos,B,Y\n"
MAC = "pregunta,respuesta\n" + "".join(f"¿Qué día es {n}?,Señor: mañana {n}\n" for n in range(4))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def workbook(*sheets: str) -> bytes:
    """A sheet of a chat, then empty ones of these names, then a hidden one."""
    raw, book = io.BytesIO(), openpyxl.Workbook()
    book.worksheets[0].append(["question", "answer"])
    book.worksheets[0].append(["Q?", "A."])
    for name in sheets:
        book.create_sheet(name)
    book.create_sheet("secret").sheet_state = "hidden"
    book.save(raw)
    return raw.getvalue()


def mend(site: Site, draft: str, row: int, *messages: tuple[str, str]) -> None:
    chat = [{"role": role, "content": content} for role, content in messages]
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    given = {"text": json.dumps({"messages": chat})}
    assert site.ask("POST", f"{draft}/rows/{row}", json=given, headers=headers).status_code == 200


def choose(site: Site, draft: str, **chosen: str) -> int:
    given = {"form_token": site.token(), "user": "pregunta", "assistant": "respuesta"}
    return site.ask("POST", f"{draft}/columns", data=given | chosen).status_code


def rows(site: Site, draft: str) -> list[list[tuple[str, str]]]:
    told: list[dict[str, Any]] = site.ask("GET", f"{draft}/rows").json()["rows"]
    return [[(m["role"], m["content"]) for m in row["messages"]] for row in told]


def test_what_was_mended_stays_when_the_system_prompt_is_another(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    mend(site, draft, 1, ("user", "uno"), ("assistant", "Mended."))
    assert choose(site, draft, system="Be brief.") == 303
    assert rows(site, draft) == [
        [("system", "Be brief."), ("user", "uno"), ("assistant", "Mended.")],
        [("system", "Be brief."), ("user", "dos"), ("assistant", "B")],
    ]
    mend(site, draft, 2, ("system", "Be long."), ("user", "dos"), ("assistant", "B"))
    assert choose(site, draft, system="Be kind.") == 303
    assert rows(site, draft)[0][0] == ("system", "Be kind.")
    assert rows(site, draft)[1][0] == ("system", "Be long."), "a prompt of its own stays"
    assert choose(site, draft) == 303
    assert rows(site, draft)[0] == [("user", "uno"), ("assistant", "Mended.")]


def test_an_edit_can_be_undone_and_done_again_after_the_system_prompt_changed(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    mend(site, draft, 1, ("user", "uno"), ("assistant", "Mended."))
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    site.ask("POST", f"{draft}/undo", headers=headers)
    choose(site, draft, system="Be brief.")
    assert rows(site, draft)[0][2] == ("assistant", "A")
    site.ask("POST", f"{draft}/redo", headers=headers)
    assert rows(site, draft)[0] == [
        ("system", "Be brief."),
        ("user", "uno"),
        ("assistant", "Mended."),
    ]


def test_other_columns_make_other_rows_and_the_edits_on_the_old_ones_go(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    mend(site, draft, 1, ("user", "uno"), ("assistant", "Mended."))
    assert 'data-sure-remade="' in site.ask("GET", draft).text
    assert choose(site, draft, assistant="otra") == 303
    assert rows(site, draft)[0] == [("user", "uno"), ("assistant", "X")]


def test_letters_that_were_read_wrong_are_set_right_by_another_encoding(site: Site) -> None:
    draft = site.bring("mac.csv", MAC.encode("mac_roman"))
    page = html.unescape(site.ask("GET", draft).text)
    assert "Mac Roman · ¿Qué día es 0?" in page, "the line that reads right is offered"
    assert choose(site, draft, encoding="mac-roman") == 303
    assert rows(site, draft)[3] == [("user", "¿Qué día es 3?"), ("assistant", "Señor: mañana 3")]
    assert choose(site, draft, encoding="mac-roman", system="Be brief.") == 303
    assert rows(site, draft)[0][1] == ("user", "¿Qué día es 0?"), "it stays with other choices"
    assert 'value="mac-roman" selected' in site.ask("GET", draft).text
    assert choose(site, draft, encoding="rot13") == 400


def test_a_file_that_says_its_encoding_itself_has_none_to_choose(site: Site) -> None:
    for encoding in ("utf-8", "utf-16"):
        draft = site.bring("mac.csv", MAC.encode(encoding))
        assert 'name="encoding"' not in site.ask("GET", draft).text


def test_a_remedy_of_the_command_line_is_none_on_a_page(site: Site) -> None:
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    odd = {
        "noise.csv": bytes(range(128, 256)) * 9,
        "book.csv": workbook(),
        "x.docx": b"no",
    }
    for name, content in odd.items():
        given = {"params": {"name": name}, "content": content, "headers": headers}
        told = site.ask("POST", "/data", **given).json()["error"]
        assert "--" not in told["message"] + (told["remedy"] or ""), name


def test_rows_that_are_no_plain_chats_are_shown_as_what_is_said(site: Site) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Say it."}]},
        "preferred_output": [{"role": "assistant", "content": "Well said."}],
        "non_preferred_output": [{"role": "assistant", "content": "Said badly."}],
    }
    draft = site.bring("pairs.jsonl", json.dumps(pair).encode())
    assert rows(site, draft)[0] == [
        ("user", "Say it."),
        ("preferred", "Well said."),
        ("rejected", "Said badly."),
    ]
    assert "Well said." in site.ask("GET", draft).text
    call = {"id": "c", "type": "function", "function": {"name": "w", "arguments": '{"a": 1}'}}
    tools = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {"role": "assistant", "tool_calls": [call]},
        ],
        "tools": [],
    }
    draft = site.bring("tools.jsonl", json.dumps(tools).encode())
    assert rows(site, draft)[0] == [("user", "Weather?"), ("assistant", 'w({"a": 1})')]
    whole = site.ask("GET", f"{draft}/rows?whole=1").json()["rows"][0]
    assert json.loads(whole["text"]) == tools
    assert "messages" not in whole, "it is edited as JSON, so that nothing of it is lost"


@pytest.mark.parametrize(
    "row",
    [
        {"preferred_output": 3, "input": []},
        {"messages": [3, {"role": "user", "content": {"a": 1}, "tool_calls": [4, {}]}]},
        {"messages": "x", "input": None, "preferred_output": [{"content": None}]},
    ],
)
def test_a_row_of_a_wrong_form_is_shown_as_far_as_it_can_be_read(
    site: Site, row: dict[str, Any]
) -> None:
    draft = site.bring("odd.jsonl", json.dumps(row).encode())
    for path in (draft, f"{draft}/rows"):
        assert site.ask("GET", path).status_code == 200


def test_another_sheet_is_read_as_what_it_holds_itself(site: Site) -> None:
    raw, book = io.BytesIO(), openpyxl.Workbook()
    for name, columns in (("One", ["instruction", "output"]), ("Two", ["question", "answer"])):
        sheet = book.create_sheet(name)
        sheet.append(columns)
        sheet.append([f"{name}?", "Yes."])
    del book["Sheet"]
    book.save(raw)
    draft = site.bring("book.xlsx", raw.getvalue())
    for name in ("One", "Two", "One"):
        form = {"form_token": site.token(), "sheet": name}
        assert site.ask("POST", f"{draft}/columns", data=form).status_code in (200, 303)
        assert rows(site, draft) == [[("user", f"{name}?"), ("assistant", "Yes.")]]
        page = site.ask("GET", draft).text
        assert ("<dd>Alpaca&#39;s rows</dd>" in page) == (name == "One")


def test_a_sheet_without_rows_says_so(site: Site) -> None:
    page = site.ask("GET", site.bring("head.csv", b"question,answer\n")).text
    assert "has no rows below them" in page
    assert '<p class="muted">Choose the two columns' not in page


def test_json_to_be_edited_has_a_line_for_each_part_and_loses_nothing() -> None:
    text = '{"a": 12345678901234567890, "b": 1.0, "c": "ñ"}'
    assert readable_json(text).splitlines()[1] == '  "a": 12345678901234567890,'
    assert '"b": 1.0' in readable_json(text)
    for other in ("no json", '{"a": "\\ud83d"}'):
        assert readable_json(other) == other


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        (
            "conversations.json",
            {
                "mapping": {
                    role: {
                        "message": {
                            "author": {"role": role},
                            "content": {"content_type": "text", "parts": [text]},
                        },
                        "parent": parent,
                    }
                    for role, text, parent in (("user", "uno", None), ("assistant", "A", "user"))
                },
                "current_node": "assistant",
                "title": "t",
            },
            "ChatGPT&#39;s export",
        ),
        (
            "alpaca.jsonl",
            {"instruction": "uno", "input": "", "output": "A"},
            "Alpaca&#39;s rows",
        ),
        (
            "turns.json",
            {"conversations": [{"from": "human", "value": "uno"}, {"from": "gpt", "value": "A"}]},
            "ShareGPT&#39;s rows",
        ),
        (
            "nova.jsonl",
            {
                "system": [],
                "messages": [
                    {"role": "user", "content": [{"text": "uno"}]},
                    {"role": "assistant", "content": [{"text": "A"}]},
                ],
            },
            "chats with a system text of their own",
        ),
    ],
)  # fmt: skip
def test_chats_of_other_makers_become_rows_and_the_page_says_what_they_were(
    site: Site, name: str, record: Any, said: str
) -> None:
    records = [record, record]
    raw = "\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records)
    draft = site.bring(name, raw.encode())
    assert rows(site, draft) == [[("user", "uno"), ("assistant", "A")]] * 2
    assert said in site.ask("GET", draft).text


def test_preferences_under_other_names_become_preferences(site: Site) -> None:
    raw = json.dumps([{"prompt": "uno", "chosen": "A", "rejected": "B"}] * 2).encode()
    draft = site.bring("pairs.json", raw)
    told = site.ask("GET", f"{draft}/rows").json()["rows"]
    assert len(told) == 2
    assert "preferences" in site.ask("GET", draft).text


@pytest.mark.parametrize("name", ["pairs.json", "marked.jsonl", "wide.jsonl", "list.jsonl"])
def test_preferences_are_read_in_whatever_file_they_come(site: Site, name: str) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Say it."}]},
        "preferred_output": [{"role": "assistant", "content": "Well said."}],
        "non_preferred_output": [{"role": "assistant", "content": "Said badly."}],
    }
    line, listed = json.dumps(pair), json.dumps([pair], indent=1)
    encoding = {"marked.jsonl": "utf-8-sig", "wide.jsonl": "utf-16"}.get(name, "utf-8")
    text = listed if name in ("pairs.json", "list.jsonl") else line
    draft = site.bring(name, text.encode(encoding))
    said = [("user", "Say it."), ("preferred", "Well said."), ("rejected", "Said badly.")]
    assert rows(site, draft) == [said]


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_a_table_with_a_column_called_item_is_a_table(site: Site, name: str) -> None:
    record = {"item": "pen", "question": "Hi", "answer": "Yes"}
    raw = "\n".join(",".join(line) for line in (record.keys(), record.values()))
    draft = site.bring(name, (raw if name.endswith("v") else json.dumps(record)).encode())
    assert rows(site, draft) == [[("user", "Hi"), ("assistant", "Yes")]]


def test_chats_under_a_key_in_capitals_are_chats(site: Site) -> None:
    row = {"Messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    draft = site.bring("rows.jsonl", json.dumps(row).encode())
    assert rows(site, draft) == [[("user", "Hi"), ("assistant", "Yes")]]


def test_rows_with_errors_are_left_out_however_many_findings_there_are(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_rows, "_MAX_FINDINGS", 3)
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    raw = b'{"messages": []}\n' * 9 + json.dumps(good).encode() + b"\n"
    draft = site.bring("rows.jsonl", raw)
    caller = first_caller(site.platform)
    kept = drafts.get_draft(site.platform, caller, draft.rpartition("/")[2])
    assert list(draft_rows.numbers_of(site.platform, kept, "bad")) == list(range(1, 10))
    assert list(draft_rows.numbers_of(site.platform, kept, "findings")) == list(range(1, 10))
    form = {"form_token": site.token(), "name": "rows.jsonl"}
    file_id = site.ask("POST", f"{draft}/save", data=form).headers["location"].partition("=")[2]
    assert json.loads(site.ask("GET", f"/data/files/{file_id}/download").content) == good
    monkeypatch.setattr(
        draft_rows, "CheckLimits", lambda **given: CheckLimits(max_bad_rows=4, **given)
    )
    (drafts.folder_of(site.platform, kept.id) / "findings.json").unlink()
    told = site.ask("POST", f"{draft}/save", data=form)
    assert told.status_code == 400
    assert "4 rows have errors, and the check stopped there" in told.text


def test_a_file_whose_records_are_all_passed_over_is_not_told_to_be_empty(site: Site) -> None:
    row = b'{"contents": [{"role": "user", "parts": "Hi"}]}\n'
    page = site.ask("GET", site.bring("rows.jsonl", row)).text
    assert "No record of the file could become a row" in page
    assert "parts is no list of parts" in page


def test_a_table_with_a_column_of_an_exports_name_offers_its_columns(site: Site) -> None:
    for name, table in (
        ("rows.csv", b"contents,label\nHi,greeting\n"),
        ("rows.jsonl", b'{"contents": "Hi", "label": "greeting"}\n'),
    ):
        page = site.ask("GET", site.bring(name, table)).text
        assert "Choose a column" in page
        assert "Hi" in page


def test_an_empty_sheet_is_told_by_the_file_s_own_name_and_without_options(site: Site) -> None:
    draft = site.bring("libro.xlsx", workbook("Empty"))
    form = {"form_token": site.token(), "sheet": "Empty"}
    told = site.ask("POST", f"{draft}/columns", data=form).text
    assert "of libro.xlsx is empty" in html.unescape(told)
    assert "--" not in told.partition("<main")[2].partition("</main>")[0]


def test_epochs_that_were_tried_go_along_to_the_form_of_the_job(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    told = site.ask("GET", f"{draft}/estimate?n_epochs=999", headers={"accept-language": "es"}).text
    assert "un número entero de 1 a 50" in told
    form = {"form_token": site.token(), "name": "casos.jsonl", "n_epochs": "7"}
    place = site.ask("POST", f"{draft}/save", data=form).headers["location"]
    assert place.endswith("&n_epochs=7")
    assert 'name="n_epochs" value="7"' in site.ask("GET", place).text
    place = site.ask("POST", f"{draft}/save", data=form | {"n_epochs": "auto"}).headers["location"]
    assert "n_epochs" not in place


def test_a_file_is_taken_away_under_its_own_name(site: Site) -> None:
    draft = site.bring("casos.csv", SHEET)
    form = {"form_token": site.token(), "name": "respuestas del año.jsonl"}
    place = site.ask("POST", f"{draft}/save", data=form).headers["location"]
    file = place.partition("file=")[2]
    told = site.ask("GET", f"/data/files/{file}/download").headers["content-disposition"]
    assert told.endswith("; filename*=UTF-8''respuestas%20del%20a%C3%B1o.jsonl")
    assert 'filename="respuestas_del_a_o.jsonl"' in told


def test_a_line_that_is_no_json_is_a_row_with_a_finding_and_can_be_mended(site: Site) -> None:
    good = (
        '{"messages": [{"role": "user", "content": "uno"}, {"role": "assistant", "content": "A"}]}'
    )
    broken = good.replace('"}]}', '"}]')
    raw = "\n".join([broken, good, "[1, 2]", good.replace("uno", "dos")]).encode()
    draft = site.bring("rows.jsonl", raw)
    told = site.ask("GET", f"{draft}/rows").json()["rows"]
    assert [row.get("text") for row in told] == [broken, None, "[1, 2]", None]
    assert [bool(row["findings"]) for row in told] == [True, False, True, False]
    assert "(not JSON)" not in site.ask("GET", draft).text, "no line was passed over"
    headers = {"x-form-token": site.token(), "accept": "application/json"}
    refused = site.ask("POST", f"{draft}/rows/1", json={"text": broken}, headers=headers)
    assert refused.status_code == 400
    mended = site.ask("POST", f"{draft}/rows/1", json={"text": good}, headers=headers)
    assert mended.status_code == 200
    first, *_ = site.ask("GET", f"{draft}/rows").json()["rows"]
    assert [m["content"] for m in first["messages"]] == ["uno", "A"]
    assert not any(finding["severity"] == "error" for finding in first["findings"])
