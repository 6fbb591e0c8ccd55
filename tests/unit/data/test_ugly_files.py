"""Files as people really have them: read as they were meant, or refused with what to do. Nothing is
lost without a word."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from afina.data.check import CheckLimits, check_file
from afina.data.convert import ConvertOptions, ConvertReport, convert_file
from afina.data.hints import conversion_hint
from afina.errors import DataUnreadable, InvalidRequest

USUAL = ConvertOptions()
CHATS = [
    json.dumps({"messages": [{"role": "user", "content": f"u{n}"}, {"role": "assistant", "content": "a"}]})
    for n in range(3)
]  # fmt: skip
OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


def convert(
    folder: Path, name: str, content: str | bytes, options: ConvertOptions = USUAL
) -> tuple[ConvertReport, list[Any]]:
    source, target = folder / name, folder / "out.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = convert_file(source, target, options)
    return report, [json.loads(line) for line in target.read_bytes().splitlines()]


def said(rows: list[Any]) -> list[tuple[str, ...]]:
    return [tuple(m["content"] for m in row["messages"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "text", "encoding", "expected"),
    [
        ("de.csv", 'Frage;Antwort\r\n"Was?";"1.234,56 €"\r\n', "cp1252", ("Was?", "1.234,56 €")),
        ("es.csv", "pregunta;respuesta\r\n¿Cuánto?;2,50\r\n", "latin-1", ("¿Cuánto?", "2,50")),
        ("pt.csv", "Pergunta\tResposta\nQuê?\tNão\n", "utf-16", ("Quê?", "Não")),
        ("le.csv", "question,answer\nWhat é,a\n", "utf-16-le", ("What é", "a")),
        ("sep.csv", "sep=;\r\nquestion;answer\r\na, b;c\r\n", "utf-8", ("a, b", "c")),
        ("title.csv", "Export 2025,\n,\nquestion,answer\nq,a\n", "utf-8", ("q", "a")),
        ("first.csv", ",question,answer\n7,q,a\n", "utf-8", ("q", "a")),
        ("break.csv", 'question,answer\n"two\nlines",a\n', "utf-8", ("two\nlines", "a")),
    ],
)
def test_sheets_are_read_as_they_were_meant(
    name: str, text: str, encoding: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    report, rows = convert(tmp_path, name, text.encode(encoding))
    assert said(rows) == [expected]
    assert report.rows_in == report.rows_out == 1


def test_what_no_message_is_made_of_is_said(tmp_path: Path) -> None:
    report, _ = convert(tmp_path, "f.csv", "id,question,answer,answer,when\n1,q,a,b,2025\n")
    assert "Not used: 'id', 'answer (2)', 'when'." in report.notes
    wide = ",".join(["question", "answer", *(f"c{n}" for n in range(98))])
    report, _ = convert(tmp_path, "f.csv", f"{wide}\n{',' * 99}\nq,a{',' * 98}\n")
    assert report.notes[-2].endswith("'c9' and 88 more.")
    asked = ConvertOptions(user="{question} ({when})", assistant="answer")
    report, rows = convert(tmp_path, "f.csv", "question,answer,when,id\nq,a,today,1\n", asked)
    assert said(rows) == [("q (today)", "a")]
    assert report.notes == ("Not used: 'id'.",)


def test_an_error_over_a_wide_table_stays_readable(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(tmp_path, "f.csv", ",".join(f"c{n}" for n in range(100)) + "\n")
    assert (caught.value.remedy or "").endswith("'c29' and 70 more.")


def test_cells_too_many_are_explained(tmp_path: Path) -> None:
    report, rows = convert(tmp_path, "f.csv", "question,answer\nq,a, with a comma\n")
    assert rows == []
    assert "must stand in quotation marks" in report.notes[-1]


def book(path: Path, *rows: tuple[Any, ...], merged: str | None = None) -> bytes:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    if merged:
        sheet.merge_cells(merged)
    workbook.save(path)
    return path.read_bytes()


def test_a_title_and_merged_headings_stand_above_the_names(tmp_path: Path) -> None:
    pair = ("q", 12.5)
    content = book(tmp_path / "b", ("Support",), (), ("question", "answer"), pair, merged="A1:B1")
    report, rows = convert(tmp_path, "f.xlsx", content)
    assert said(rows) == [("q", "12.5")]
    assert "stand in line 3" in report.notes[0]
    two = book(tmp_path / "b", ("Who", None, "Agent"), ("id", "question", "answer"), (1, "q", "a"))
    assert said(convert(tmp_path, "f.xlsx", two)[1]) == [("q", "a")]


def test_formulas_without_values_are_named(tmp_path: Path) -> None:
    report, rows = convert(
        tmp_path, "f.xlsx", book(tmp_path / "b", ("question", "answer"), ("q", '=A2&"!"'))
    )
    assert said(rows) == [("q", "")]
    assert "that in B2" in report.notes[0]


def archive(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(name, "<x/>")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.xlsx", OLD, "old Excel workbook"),
        ("f.xls", OLD, "old Excel workbook"),
        ("f.xlsx", OLD + "EncryptedPackage".encode("utf-16-le"), "password"),
        ("f.xlsx", b"question,answer\nq,a\n", "plain text"),
        ("f.xlsx", b"<html><table>", "web page"),
        ("f.xlsx", b"", "is empty"),
        ("f.xlsx", b"PK\x03\x04 cut short", "damaged archive"),
        ("f.xlsx", b"\x1f\x8b\x08", "compressed"),
        ("f.ods", b"PK", "OpenDocument"),
        ("f.csv.gz", b"", "Unpack it first"),
        ("f.pdf", b"%PDF", "PDF"),
        ("f.jsonl", b"question,answer\nq,a\n", "If it is a table, give --format csv"),
        ("f.jsonl", b"", "is empty"),
        ("f.json", b"", "is empty"),
        ("f.json", "\n".join(CHATS).encode(), "give --format jsonl"),
        ("f.jsonl", b"{'messages': []}\n", "single quotes"),
        ("f.jsonl", b'{"messages": [],}\n', "comma stands in front of a closing bracket"),
        ("f.json", b'[{"question": "a", "answer": "b",}]', "comma stands in front"),
        ("f.jsonl", "{“question”: 1}\n".encode(), "Typographic quotation marks"),
        ("f.jsonl", b'{"a": True}\n', "true, false and null"),
        ("f.jsonl", b"[1, 2]\n[3]\n", "is no object"),
        ("f.jsonl", b"{\0}\0\n\0{\0x", "not utf-16-le text from line"),
        ("f.jsonl", b"\xfe\xff\0{\0}\n", "not utf-16 text from line 1 on"),
    ],
)
def test_what_cannot_be_read_says_what_it_is_and_what_to_do(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataUnreadable) as caught:
        convert(tmp_path, name, content)
    assert words in caught.value.one_line()


def test_other_archives_are_called_what_they_are(tmp_path: Path) -> None:
    for inside, words in (
        ("word/document.xml", "text document"),
        ("content.xml", ".ods"),
        ("a", "no sheet"),
    ):
        with pytest.raises(DataUnreadable, match=words):
            convert(tmp_path, "f.xlsx", archive(tmp_path / "z", inside))  # fmt: skip


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("[" + ", ".join(CHATS) + "]", "one JSON list"),
        ("[\n" + ",\n".join(CHATS) + "\n]\n", "one JSON list"),
        ("\n".join(json.dumps(json.loads(c), indent=1) for c in CHATS), "over several lines"),
        (",\n".join(CHATS), "2 lines end with a comma"),
    ],
)
def test_chats_that_are_not_one_a_line_are_read_and_said(
    content: str, note: str, tmp_path: Path
) -> None:
    report, rows = convert(tmp_path, "f.jsonl", content)
    assert [json.dumps(row) for row in rows] == CHATS
    assert any(note in said for said in report.notes), report.notes


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
def test_chats_in_other_encodings_lose_no_line(encoding: str, tmp_path: Path) -> None:
    text = "\r\n".join(c.replace("u1", "ü1") for c in CHATS)
    report, rows = convert(tmp_path, "f.jsonl", text.encode(encoding))
    assert [row["messages"][0]["content"] for row in rows] == ["u0", "ü1", "u2"]
    assert report.dropped == {}


def test_a_line_that_is_too_long_in_another_encoding_is_dropped_by_its_number(
    tmp_path: Path,
) -> None:
    long = '{"a": "' + "x" * (9 << 20) + '"}'
    report, rows = convert(
        tmp_path, "f.jsonl", "\n".join([CHATS[0], long, CHATS[1]]).encode("utf-16")
    )
    assert len(rows) == 2  # fmt: skip
    assert report.notes == ("Dropped (line too long): line 2.",)


SPOKEN = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"Instruction": "i", "Input": None, "Output": "o"}, ["i", "o"]),
        ({"instruction": "i", "context": "c", "response": "o"}, ["i\n\nc", "o"]),
        ({"instruction": "i", "output": "o", "history": [["u", "a"]], "system": "S"}, ["S", "u", "a", "i", "o"]),
        ({"conversation": SPOKEN}, ["u", "a"]),
        ({"conversations": json.dumps(SPOKEN)}, ["u", "a"]),
        ({"messages": json.dumps([{"role": "user", "content": "u"}])}, ["u"]),
    ],
)  # fmt: skip
def test_small_deviations_of_known_layouts_lose_nothing(
    row: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    report, rows = convert(tmp_path, "f.jsonl", json.dumps(row))
    assert [m["content"] for m in rows[0]["messages"]] == expected
    assert report.dropped == {}


def test_weights_and_calls_of_sharegpt_are_kept(tmp_path: Path) -> None:
    call = {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "UTC"}}'}
    turns = [
        {"from": "human", "value": "u"},
        {"from": "gpt", "value": "a", "weight": 0},
        {"from": "human", "value": "v"},
        call,
        {"from": "observation", "value": "9:00"},
        {"from": "gpt", "value": "Nine."},
    ]
    row = {"conversations": turns, "tools": json.dumps([{"name": "clock"}])}
    _, rows = convert(tmp_path, "f.jsonl", json.dumps(row))
    messages = rows[0]["messages"]
    assert messages[1]["weight"] == 0
    assert messages[3]["tool_calls"][0]["function"] == {"name": "clock", "arguments": '{"zone": "UTC"}'}  # fmt: skip
    assert messages[4] == {"role": "tool", "content": "9:00", "tool_call_id": "call_1"}
    (tmp_path / "ok.jsonl").write_text(json.dumps(rows[0]))
    assert check_file(tmp_path / "ok.jsonl", CheckLimits(min_rows=1), None).errors == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "hello"}, "messages is a text that is no JSON list"),
        ({"instruction": "i", "output": "o", "history": ["u", "a"]}, "history is no list of pairs"),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "a function_call is no JSON with a name"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_hold_is_dropped_by_its_reason(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    report, rows = convert(tmp_path, "f.jsonl", json.dumps(row))
    assert (rows, report.dropped) == ([], {reason: 1})


def test_half_a_character_drops_its_row_alone(tmp_path: Path) -> None:
    content = '[{"question": "\\ud83d", "answer": "a"}, {"question": "q", "answer": "a"}]'
    report, rows = convert(tmp_path, "f.json", content)
    assert said(rows) == [("q", "a")]
    assert report.dropped == {"half of a character, cut in two": 1}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.csv", "question,answer\nq,a\n", "a table (CSV). Make training rows of it: "),
        ("f.csv", "a b,c d\nq,a\n", "--user COLUMN --assistant COLUMN. The columns are: 'a b'"),
        ("f.jsonl", '{"question": "q", "answer": "a"}', "are no chats. Make training rows: "),
        ("f.jsonl", '{"id": 1, "body": "q"}', "--user COLUMN --assistant COLUMN"),
        ("f.jsonl", "question,answer\nq,a\n", "--format csv --to"),
        ("f.jsonl", '{"prompt": "p", "completion": 3}', None),
        ("f.jsonl", '{"messages": [}', None),
        ("f.jsonl", '{"instruction": "i", "input": "", "output": "o"}', "Alpaca"),
        ("f.jsonl", json.dumps({"conversations": SPOKEN}), "ShareGPT"),
        ("f.jsonl", f"[{CHATS[0]}]", "another form"),
        ("f.jsonl", '{"messages": 3}', None),
        ("f.bin", "\0", None),
    ],
)
def test_a_file_without_a_usable_row_is_told_how_to_become_one(
    name: str, content: str, words: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    hint = conversion_hint(tmp_path / name)
    assert hint is None if words is None else words in (hint or "")


def test_rows_of_alpaca_are_not_held_against_the_rules_of_preferences(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"instruction": "i", "input": "", "output": "o"}')
    report = check_file(tmp_path / "f", CheckLimits(min_rows=0), None)
    assert list(report.counts) == ["missing-messages"]
    assert "afina data convert" in report.findings[0].remedy


def test_merged_cells_give_their_value_to_the_rows_below(tmp_path: Path) -> None:
    rows = [("q1", "a1"), ("q2", None), ("q3", "a3"), ("q4", None)]
    content = book(tmp_path / "b", ("question", "answer"), *rows, merged="B2:B3")
    report, written = convert(tmp_path, "f.xlsx", content)
    assert said(written) == [("q1", "a1"), ("q2", "a1"), ("q3", "a3"), ("q4", "")]
    assert report.notes[0] == "Cells were merged downwards: 1 of the rows below got their value."


def test_errors_of_a_sheet_and_hidden_sheets_are_told(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    for row in (("question", "answer"), ("why", "#REF!"), ("why", "a")):
        sheet.append(row)
    workbook.create_sheet("more").sheet_state = "hidden"
    workbook.save(tmp_path / "b")
    report, _ = convert(tmp_path, "f.xlsx", (tmp_path / "b").read_bytes())
    assert any("#REF! in B2" in note for note in report.notes)
    assert any("'more' (--sheet reads one)" in note for note in report.notes)
    sheet["A1"], sheet["B1"] = "notes", None
    workbook.save(tmp_path / "b")
    with pytest.raises(InvalidRequest, match="No column is plainly what the user says") as caught:
        convert(tmp_path, "f.xlsx", (tmp_path / "b").read_bytes())
    assert "Hidden sheets are not read: 'more'" in (caught.value.remedy or "")


def test_names_below_merged_headings_may_stand_twice(tmp_path: Path) -> None:
    rows = [("Customer", None, "Agent", None), ("id", "text", "text", "name"), (1, "q", "a", "x")]
    content = book(tmp_path / "b", *rows)
    asked = ConvertOptions(user="text", assistant="text (2)")
    assert said(convert(tmp_path, "f.xlsx", content, asked)[1]) == [("q", "a")]


def test_a_file_of_two_encodings_is_refused_with_the_line(tmp_path: Path) -> None:
    lines = "".join(f"¿Qué {n}?,Sí\n" for n in range(5))
    content = b"question,answer\n" + lines.encode() + lines.encode("cp1252")
    with pytest.raises(DataUnreadable, match="two encodings: it is UTF-8 up to line 7"):
        convert(tmp_path, "f.csv", content)
    report, rows = convert(tmp_path, "f.csv", ("question,answer\n" + lines).encode("cp1252"))
    assert (report.encoding, len(rows)) == ("cp1252", 5)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.jsonl", b"\x1f\x8b\x08", "is compressed (gzip). Unpack it first."),
        ("f.csv", b"%PDF-1.7", "is a PDF"),
        ("f.csv", b"PAR1", "Give --format parquet."),
        ("f.xls", b"<html><table>", "web page"),
        ("f.csv", b"\n\n", "is empty"),
        ("f.parquet", b"", "is empty"),
        ("f.parquet", b"PAR1 and a half", "cut short"),
        ("f.parquet", b"question,answer\n", "no Parquet file"),
        ("f.json", b'["a", "b"]', "a list without an object"),
        ("f.json", b'{"question": {"0": "a"}, "answer": {"0": "b"}}', 'orient="records"'),
        ("f.json", b'{"a": [{"x": 1}], "b": {"c": [{"y": 1}]}}', "2 lists of objects: 'a', 'b.c'"),
    ],
)  # fmt: skip
def test_what_a_name_promises_and_the_bytes_are_not_is_said(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataUnreadable) as caught:
        convert(tmp_path, name, content)
    assert words in caught.value.one_line()


def test_rows_deeper_in_a_document_are_found(tmp_path: Path) -> None:
    document = {"meta": {"n": 1}, "data": {"rows": [{"question": "q", "answer": "a"}]}}
    report, rows = convert(tmp_path, "f.json", json.dumps(document))
    assert said(rows) == [("q", "a")]
    assert report.notes[0] == "The rows are those under 'data.rows'."


def test_one_list_in_a_line_that_is_too_long_is_read_as_a_list(tmp_path: Path) -> None:
    long = json.dumps([{"question": "q", "answer": "a" * 1000}] * 9000)
    report, rows = convert(tmp_path, "f.jsonl", long)
    assert len(rows) == 9000
    assert "one JSON list" in report.notes[0]


def test_a_table_without_rows_says_so(tmp_path: Path) -> None:
    report, rows = convert(tmp_path, "f.csv", "question,answer\n")
    assert (rows, report.notes[-1]) == ([], "There are names of columns and no row below them.")


def test_what_is_odd_in_rows_is_told_with_its_first_line(tmp_path: Path) -> None:
    spoken = [{"from": "human", "value": "u"}, {"from": "Ann", "value": "a"}]
    report, _ = convert(tmp_path, "f.jsonl", json.dumps({"conversations": spoken}))
    assert 'The role "Ann" stands once, the first in line 1' in report.notes[-1]
    report, _ = convert(tmp_path, "f.csv", "question,answer\nq,a\nq,a\0\n")
    assert "U+0000 stands in 1 row, the first in line 3" in report.notes[-1]
    report, _ = convert(tmp_path, "f.json", '[{"question": "q", "answer": ["a"]}]')
    assert "Column 'answer' holds lists or objects in 1 row;" in report.notes[-1]


def test_which_column_is_meant_is_asked_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="More than one column could be what the user says"):
        convert(tmp_path, "f.csv", "prompt,query,answer\nq,q,a\n")
    with pytest.raises(InvalidRequest, match="none is called assistant, answer") as caught:
        convert(tmp_path, "f.csv", "question,Why not?\nq,q\n")
    assert "put a first row with names above it" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.xlsx", None, "is no JSONL. `afina data convert"),
        ("f.parquet", b"PAR1 and a half", "cut short"),
        ("f.jsonl", b"PK\x03\x04", "damaged archive"),
        ("my rows.jsonl", b"PAR1", "afina data convert '{folder}/my rows.jsonl' --format parquet"),
    ],
)
def test_a_file_that_cannot_be_converted_at_once_has_a_hint_too(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"" if content is None else content)
    if content is None:
        workbook = openpyxl.Workbook()
        workbook.create_sheet("second")
        workbook.save(tmp_path / name)
    assert words.format(folder=tmp_path) in (conversion_hint(tmp_path / name) or "")


def test_short_and_plural_names_are_taken_where_there_are_no_better_ones(tmp_path: Path) -> None:
    for header in ("Q,A", "questions,Answers", "preguntas,respuestas", "Perguntas,respostas"):
        _, rows = convert(tmp_path, "f.csv", f"{header}\nwhy,so\n")
        assert said(rows) == [("why", "so")]
    _, rows = convert(tmp_path, "f.csv", "question,a,b,answer\nwhich,x,y,x\n")
    assert said(rows) == [("which", "x")]


def test_a_likely_column_is_named_and_not_taken(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="perhaps --user 'Pregunta del cliente'"):
        convert(tmp_path, "f.csv", "Tipo,Pregunta del cliente,Respuesta\nt,q,a\n")


def test_marks_inside_joined_files_are_left_out_and_said(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"question": "q", "answer": "a"}\n'
    report, rows = convert(tmp_path, "f.jsonl", line * 3)
    assert said(rows) == [("q", "a")] * 3
    assert any("2 lines begin with a byte order mark" in note for note in report.notes)
    found = check_file(tmp_path / "f.jsonl", CheckLimits(min_rows=1), None).findings
    assert [f.line for f in found if "byte order mark" in f.message] == [2, 3]
