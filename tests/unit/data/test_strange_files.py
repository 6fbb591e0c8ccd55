"""Files that a stranger brings: what is not as it looks is told, with what to do about it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import openpyxl
import openpyxl.chart
import pytest
from tests.unit.data.test_ugly_files import CHATS, convert

from afina.data.check import CheckLimits, check_file
from afina.data.convert import ConvertOptions, convert_file, convert_frame
from afina.errors import DataUnreadable, InvalidRequest


def test_numbers_of_a_sheet_that_are_not_stored_as_they_are_seen_are_told(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    stay = datetime.timedelta(hours=30, minutes=5)
    for row in (("question", "answer"), ("code", 8001), ("id", 12345678901234567), ("stay", stay)):
        sheet.append(row)
    sheet["B2"].number_format = "00000"
    workbook.save(tmp_path / "f.xlsx")
    report = convert_file(tmp_path / "f.xlsx", tmp_path / "out", ConvertOptions())
    notes = " ".join(report.notes)
    assert "Noughts in front are shown and not stored, in B2 for one" in notes
    assert "Numbers of more than 15 digits, B3 for one, were rounded" in notes
    rows = [json.loads(line) for line in (tmp_path / "out").read_text("utf-8").splitlines()]
    said = [row["messages"][1]["content"] for row in rows]
    assert said == ["8001", "12345678901234600", "30:05:00"]


def test_what_a_sheet_shows_and_the_file_does_not_hold_is_told(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.create_sheet("s", 0)
    del workbook["Sheet"]
    for row in (("question", "answer"), ("what share", 0.125), ("filtered out", "x"), ("n", 2)):
        sheet.append(row)
    sheet["B2"].number_format = "0.0%"
    sheet.row_dimensions[3].hidden = True
    workbook.save(tmp_path / "f.xlsx")
    report = convert_file(tmp_path / "f.xlsx", tmp_path / "out", ConvertOptions())
    notes = " ".join(report.notes)
    assert "Percentages are written as the numbers that are stored, B2 for one" in notes
    assert "Hidden rows are read too, 1 of them, line 3 for one" in notes
    assert report.rows_out == 3


def test_a_guessed_encoding_is_a_common_one_and_said_to_be_a_guess(tmp_path: Path) -> None:
    text = "question,answer\n" + "Сколько стоит билет?,Он стоит пять рублей за штуку\n" * 5
    (tmp_path / "f.csv").write_bytes(text.encode("cp1251"))
    report = convert_file(tmp_path / "f.csv", tmp_path / "out", ConvertOptions())
    assert report.encoding == "cp1251"
    assert "The encoding is a guess" in report.notes[0]
    assert "рублей" in (tmp_path / "out").read_text()


def test_keys_that_no_chat_may_have_are_told_with_the_command_that_takes_them_out(
    tmp_path: Path,
) -> None:
    rows = [json.loads(CHATS[0]) | {"source": "x"}, json.loads(CHATS[0])]
    content = "\n".join(map(json.dumps, rows))
    report, kept = convert(tmp_path, "f.jsonl", content)
    assert kept == rows
    assert (
        'The key "source" stands beside the messages of 1 chat, the first in line 1'
        in (report.notes[-1])
    )
    task = {"messages": [{"role": "user", "content": "q"}], "reference": "a"}
    assert convert(tmp_path, "f.jsonl", json.dumps(task))[0].notes == ()


def test_judged_completions_are_not_all_good_ones(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in (True, False)]
    report, _ = convert(tmp_path, "f.jsonl", "\n".join(map(json.dumps, rows)))
    assert "the bad ones are written too" in report.notes[-1]


def test_a_column_of_marked_chats_is_told_its_layout(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="in 'text' are --layout chatml"):
        convert(tmp_path, "f.jsonl", json.dumps({"text": "<|im_start|>user\nq<|im_end|>"}))


def test_chats_that_pandas_reads_from_parquet_are_chats(tmp_path: Path) -> None:
    import pandas as pd

    chats = [json.loads(CHATS[0])["messages"], "no chat"]
    pd.DataFrame({"messages": chats[:1]}).to_parquet(tmp_path / "f.parquet")
    frame = pd.read_parquet(tmp_path / "f.parquet")
    assert convert_frame(frame, ConvertOptions()) == [{"messages": chats[0]}]
    with pytest.warns(UserWarning, match="line 2"):
        rows = convert_frame(pd.DataFrame({"messages": chats}), ConvertOptions())
    assert rows == [{"messages": chats[0]}]


@pytest.mark.parametrize("mark", [" ", "\t", ";"])
def test_a_text_file_that_begins_with_names_of_columns_is_a_table(
    mark: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "excel.txt", tmp_path / "rows.jsonl"
    lines = [("Pregunta", "Respuesta"), ("¿Uno?", '"A\nB"')]
    source.write_text("\n".join(mark.join(cells) for cells in lines), encoding="utf-16")
    report = convert_file(source, target, ConvertOptions())
    if mark == " ":
        assert (report.layout, report.rows_out) == ("pair", 3), "lines are lines"
        return
    assert "The text is a table" in report.notes[0]
    assert json.loads(target.read_text())["messages"][1]["content"] == "A\nB"
    lined = convert_file(source, target, ConvertOptions(format="txt"))
    assert (lined.layout, lined.rows_out) == ("pair", 3)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "a picture (PNG)"),
        ("a.jsonl", b"\xff\xd8\xff\xe0" + bytes(range(256)), "a picture (JPEG)"),
        ("a.csv", b"SQLite format 3\0" + bytes(range(256)), "a database (SQLite)"),
        ("a.csv", b"RIFF" + bytes(range(256)), "no text"),
        ("a.jsonl", b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        ("a.csv", b"\n<html><table><tr><td>a</td></tr></table>", "a web page"),
        ("a.tar", b"a", "an archive (.tar)"),
        ("a.html", b"<html></html>", "a web page"),
    ],
)
def test_what_is_no_text_of_rows_is_called_what_it_is(
    name: str, raw: bytes, said: str, tmp_path: Path
) -> None:
    source = tmp_path / name
    source.write_bytes(raw)
    with pytest.raises(DataUnreadable) as caught:
        convert_file(source, tmp_path / "rows.jsonl", ConvertOptions())
    assert caught.value.message.startswith(f"{name} is {said}")
    assert caught.value.remedy


def test_a_few_odd_bytes_make_no_text_of_another_kind(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(b"question,answer\nHi\x07,Yes\x00\x1b[0m\n" * 9)
    assert convert_file(source, tmp_path / "rows.jsonl", ConvertOptions()).rows_out == 17


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ('q,"never closed\nq,a\n', "a quotation mark opens a cell there, and none closes it"),
        ('q,"closed" and on\nq,a\n', "a cell goes on behind the quotation mark that closes it"),
    ],
)
def test_a_quotation_mark_that_is_wrong_is_told_in_words(
    rest: str, said: str, tmp_path: Path
) -> None:
    source = tmp_path / "a.csv"
    source.write_text(f"question,answer\n{rest}")
    with pytest.raises(DataUnreadable, match=f"line 2 on: {said}"):
        convert_file(source, tmp_path / "rows.jsonl", ConvertOptions())


def test_a_zero_behind_an_object_is_named_and_an_archive_is_no_utf16(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"messages": []}\0\n')
    (finding, *_) = check_file(source, CheckLimits(), None).findings
    assert "U+0000" in f"{finding.message} {finding.remedy}"
    source.write_bytes(
        b"PK\3\4\x14\0\0\0\0\0\xeb\x20\x81\x5dC\xbf\xa6\xa3\2\0\0\0\2\0\0\0\7\0\0\0a.jsonl{}"
    )
    (finding, *_) = check_file(source, CheckLimits(), None).findings
    assert finding.rule == "not-utf8"
    assert "UTF-16" not in finding.message


SPOKEN = {
    "es": "¿Cuándo llegará mi pedido? El señor dirá mañana qué pasó con la atención.",
    "pt": "Não há informação: a apólice não está disponível, é preciso ligação.",
    "de": "Für die Größe der Lösung müssen wir später prüfen, ob es möglich wäre.",
    "fr": "L’été dernier, la réponse était déjà prête et le garçon très élégant.",
    "en": "don’t – it’s “fine”… •item 10\xa0kg of\xa0the caf\xe9s",
}


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "mac_roman"])
@pytest.mark.parametrize("language", SPOKEN)
def test_a_code_page_is_known_by_the_letters_in_its_words(
    language: str, encoding: str, tmp_path: Path
) -> None:
    text = SPOKEN[language]
    if language in ("fr", "en") and encoding == "cp850":
        text = text.translate({ord(sign): "" for sign in "’–“”…•"})
    source, target = tmp_path / "table.csv", tmp_path / "rows.jsonl"
    source.write_bytes(f"question|answer\n{text}|Yes\n".encode(encoding))
    report = convert_file(source, target, ConvertOptions())
    told = json.loads(target.read_text("utf-8"))["messages"][0]["content"]
    assert (report.encoding, told) == (encoding, text)


def test_letters_that_were_read_wrong_before_are_told(tmp_path: Path) -> None:
    wrong = SPOKEN["pt"].encode().decode("cp1252", "replace")
    source = tmp_path / "table.csv"
    source.write_text(f"question;answer\nÁgua São NÃO Â É;ok\n{wrong};ok\n", encoding="utf-8")
    report = convert_file(source, tmp_path / "rows.jsonl", ConvertOptions())
    (note,) = [note for note in report.notes if "Ã©" in note]
    assert "in 1 row, the first in line 3" in note


def test_a_space_before_quotation_marks_and_a_colon_behind_a_name_are_no_part_of_them(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "table.csv", tmp_path / "rows.jsonl"
    source.write_text('"Pregunta:"; "* Respuesta"\n"¿a; b?"; "c"\n')
    convert_file(source, target, ConvertOptions())
    told = json.loads(target.read_text("utf-8"))["messages"]
    assert [message["content"] for message in told] == ["¿a; b?", "c"]


@pytest.mark.parametrize(
    ("text", "question", "single"),
    [
        ("question,answer\n'What, is it?','It is'\n'x','It''s y'\n", "What, is it?", True),
        ("'question';'answer'\n'a;\nb';'c'\n", "a;\nb", True),
        ("question,answer\n'tis true?,aye 'tis\n'twas so?,yes\n", "'tis true?", False),
        ("question,answer\n'Hello,' he said,x\n", None, False),
        ("question,answer\n\"'a, b'\",c\n", "'a, b'", False),
    ],
)
def test_cells_in_single_quotation_marks_are_read_and_apostrophes_left_alone(
    tmp_path: Path, text: str, question: str | None, single: bool
) -> None:
    source, target = tmp_path / "table.csv", tmp_path / "rows.jsonl"
    source.write_text(text)
    report = convert_file(source, target, ConvertOptions())
    assert any("single quotation marks" in note for note in report.notes) is single
    rows = [json.loads(line)["messages"] for line in target.read_text("utf-8").splitlines()]
    assert (rows[0][0]["content"] if rows else None) == question


def test_a_workbook_of_charts_alone_is_called_that(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    chart = openpyxl.chart.BarChart()
    chart.add_data(openpyxl.chart.Reference(sheet, min_col=1, min_row=1, max_row=2))
    book.create_chartsheet("Chart").add_chart(chart)
    book.remove(sheet)
    path = tmp_path / "charts.xlsx"
    book.save(path)
    with pytest.raises(DataUnreadable, match="holds charts and no sheet with cells") as told:
        convert_file(path, tmp_path / "rows.jsonl", ConvertOptions())
    assert told.value.code == "file_charts"


def test_a_merged_block_gives_its_value_to_the_rows_below(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (("question", "more", "answer"), ("Q", None, "a"), (None, None, "b")):
        book.worksheets[0].append(row)
    book.worksheets[0].merge_cells("A2:B3")
    book.save(tmp_path / "f.xlsx")
    convert_file(tmp_path / "f.xlsx", tmp_path / "rows.jsonl", ConvertOptions())
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == ["Q", "Q"]
