"""Logs and tables whose records are turns: put together by conversation, in the order that is asked
for, and nothing that was asked for is left undone without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afina.data.convert import ConvertOptions, ConvertReport, convert_file
from afina.errors import InvalidRequest

LOG = """conversación,orden,quien,texto
A,2,agente,Hola. Soy Ana.
B,1,cliente,¿Precio?
A,1,cliente,Buenas
A,10,agente,Adiós
B,2,agente,10 euros
A,3,cliente,Gracias
"""
A = ["user Buenas", "assistant Hola. Soy Ana.", "user Gracias", "assistant Adiós"]
B = ["user ¿Precio?", "assistant 10 euros"]


def convert(folder: Path, table: str, **options: Any) -> tuple[list[list[str]], ConvertReport]:
    """What is said in each row, and the report, whose counts add up."""
    source, target = folder / "log.csv", folder / "rows.jsonl"
    source.write_text(table, encoding="utf-8")
    report = convert_file(source, target, ConvertOptions(**options))
    assert report.rows_in == report.rows_out + report.rows_joined + sum(report.dropped.values())
    rows = [json.loads(line)["messages"] for line in target.read_text("utf-8").splitlines()]
    return [[f"{m['role']} {m['content']}" for m in messages] for messages in rows], report


def test_turns_are_put_in_the_order_of_the_column_that_is_named(tmp_path: Path) -> None:
    rows, report = convert(tmp_path, LOG, group="conversación", order="Orden")
    assert rows == [A, B], "as numbers: 10 is after 3"
    assert report.rows_joined == 4
    assert not any("--order" in note for note in report.notes)


@pytest.mark.parametrize("unit", ["2026-03-0{}", "2026-03-04 10:0{}:00", "2026-03-04T0{}:00:00Z"])
def test_turns_are_put_in_the_order_of_their_dates(unit: str, tmp_path: Path) -> None:
    times = {"2": "2", "1": "1", "10": "9", "3": "3"}
    head, *lines = LOG.splitlines()
    cells = [line.split(",") for line in lines]
    dated = [",".join([c[0], unit.format(times[c[1]]), *c[2:]]) for c in cells]
    rows, _ = convert(tmp_path, "\n".join([head, *dated]), group="conversación", order="orden")
    assert rows == [A, B]


def test_a_column_that_says_another_order_than_the_file_is_told_of(tmp_path: Path) -> None:
    rows, report = convert(tmp_path, LOG, group="conversación")
    assert rows[1] == B
    assert rows[0] != A
    assert any("Column 'orden' puts 1 of the conversations" in note for note in report.notes)
    in_order = "chat,turn,role,text\n" + "".join(f"a,{n},user,t{n}\n" for n in range(3))
    _, report = convert(tmp_path, in_order, group="chat")
    assert not any("--order" in note for note in report.notes)


def test_records_of_no_conversation_are_dropped_by_line_and_do_not_become_one(
    tmp_path: Path,
) -> None:
    rows, report = convert(
        tmp_path, LOG + ",1,cliente,uno\n ,2,cliente,dos\n", group="conversación"
    )
    assert len(rows) == 2
    assert dict(report.dropped) == {"the conversation is not named": 2}
    assert any("line 8, 9" in note for note in report.notes)


def test_a_conversation_whose_order_is_not_known_is_dropped_whole(tmp_path: Path) -> None:
    table = LOG.replace("B,2,", "B,04/03/2026,")
    rows, report = convert(tmp_path, table, group="conversación", order="orden")
    assert rows == [A]
    assert dict(report.dropped) == {"the order of the conversation is not known": 2}


def test_a_system_message_stands_once_in_front_of_a_logs_conversation(tmp_path: Path) -> None:
    rows, _ = convert(tmp_path, LOG, group="conversación", order="orden", system="Be kind.")
    assert rows == [["system Be kind.", *A], ["system Be kind.", *B]]
    own = "chat,role,text,rule\na,system,Mine,\na,user,Hi,\nb,user,Hi,Be brief\nb,assistant,Yes,Be brief\n"
    rows, _ = convert(tmp_path, own, group="chat", system="Be kind.")
    assert rows == [["system Mine", "user Hi"], ["system Be kind.", "user Hi", "assistant Yes"]]
    rows, _ = convert(tmp_path, own, group="chat", system_column="rule")
    assert rows[1] == ["system Be brief", "user Hi", "assistant Yes"]


def test_a_fixed_system_message_stands_in_preferences_too(tmp_path: Path) -> None:
    source, target = tmp_path / "pairs.csv", tmp_path / "rows.jsonl"
    source.write_text("prompt,chosen,rejected\nHi,Yes,No\n")
    convert_file(source, target, ConvertOptions(system="Be kind."))
    assert json.loads(target.read_text())["input"]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("ending", "options", "said"),
    [
        ("csv", {"layout": "alpaca", "user": "a"}, "--user names a column"),
        ("csv", {"layout": "sharegpt", "group": "a"}, "--group names a column"),
        ("csv", {"layout": "chat", "system_column": "a"}, "--system-column names a column"),
        ("csv", {"layout": "pair", "system": "Be kind."}, "have no system message"),
        ("csv", {"order": "a"}, "--group does not say"),
        ("txt", {"system": "Be kind."}, "have no system message"),
        ("txt", {"layout": "chatml"}, "have not the layout chatml"),
        ("txt", {"user": "c", "assistant": "b"}, "There is no column 'c'"),
    ],
)
def test_what_is_asked_for_and_cannot_be_done_is_refused(
    ending: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    source = tmp_path / f"table.{ending}"
    source.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidRequest, match=said):
        convert_file(source, tmp_path / "rows.jsonl", ConvertOptions(**options))


@pytest.mark.parametrize("columns", ["role,content", "quien,texto", "papel,mensagem"])
def test_a_log_without_a_word_on_its_conversations_is_told_how_to_name_them(
    columns: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(tmp_path, f"id,{columns}\n1,user,Hi\n")
    assert "give --group" in str(caught.value.remedy)
    rows, _ = convert(tmp_path, f"id,{columns}\n1,cliente,Hi\n1,agente,Yes\n", group="id")
    assert rows == [["user Hi", "assistant Yes"]]
