"""Tables and chats of every format become chat JSONL, and nothing is lost unsaid."""

from __future__ import annotations

import codecs
import datetime
import json
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from afina.data.convert import ConvertOptions, ConvertReport, convert_file, convert_frame
from afina.errors import DataUnreadable, InvalidRequest

NAMED = ConvertOptions(user="Question", assistant="Answer")
PAIRS = [("What is “naïve” Bayes?", "Forsooth – a thing."), ("a,b;c", 'say "x"\nthen y'), ("é", "")]


def convert(source: Path, options: ConvertOptions = NAMED) -> tuple[ConvertReport, list[Any]]:
    target = source.with_name("out.jsonl")
    report = convert_file(source, target, options)
    rows = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert report.rows_in == report.rows_out + sum(report.dropped.values())
    assert report.rows_out == len(rows)
    return report, rows


def pairs(rows: list[Any]) -> list[tuple[str, str]]:
    return [tuple(m["content"] for m in row["messages"][-2:]) for row in rows]


def table(delimiter: str = ",", end: str = "\r\n") -> str:
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in pair] for pair in PAIRS]
    return end.join([f"question{delimiter}ANSWER", *(delimiter.join(p) for p in quoted), ""])


@pytest.mark.parametrize(
    ("encoding", "mark", "found"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", codecs.BOM_UTF8, "utf-8-sig"),
        ("cp1252", b"", "cp1252"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found_and_said(
    encoding: str, mark: bytes, found: str, delimiter: str, tmp_path: Path
) -> None:
    source = tmp_path / "f.csv"
    source.write_bytes(mark + table(delimiter).encode(encoding))
    report, rows = convert(source)
    assert pairs(rows) == PAIRS
    assert report.encoding == found
    assert report.encoding_reason
    names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
    assert report.delimiter == names[delimiter]
    assert report.columns == ("question", "ANSWER")


def test_other_code_pages_are_guessed_or_given(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    russian = "Вопрос о том, как учится модель и почему она отвечает. " * 20
    source.write_bytes(f'question,answer\n"{russian}","{russian}"\n'.encode("cp1251"))
    report, _ = convert(source)
    assert report.encoding not in ("cp1252", "utf-8")
    assert "charset-normalizer" in str(report.encoding_reason)
    report, rows = convert(source, ConvertOptions("question", "answer", encoding="windows-1251"))
    assert pairs(rows) == [(russian, russian)]
    assert report.encoding_reason == "given"


@pytest.mark.parametrize(
    ("encoding", "error"), [("klingon", InvalidRequest), ("utf-8", DataUnreadable)]
)
def test_a_given_encoding_must_exist_and_fit(
    encoding: str, error: type[Exception], tmp_path: Path
) -> None:
    source = tmp_path / "f.csv"
    source.write_bytes(table().encode("cp1252"))
    with pytest.raises(error):
        convert(source, ConvertOptions("question", "answer", encoding=encoding))


def test_bytes_that_cp1252_lacks_in_the_middle_of_a_large_file_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    body = "question,answer\n" + f"plain,{'x' * 500}\n" * 1_500
    source.write_bytes(body.encode() + "é,è\n".encode("cp1252") + b"x,y\n")
    report, rows = convert(source)
    assert report.encoding == "cp1252"
    assert pairs(rows)[-2:] == [("é", "è"), ("x", "y")]


def test_wrong_columns_list_the_columns_there_are(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    source.write_text("Frage,Antwort\na,b\n")
    with pytest.raises(InvalidRequest, match="'question'") as caught:
        convert(source, ConvertOptions(user="question", assistant="Antwort"))
    assert "'Frage', 'Antwort'" in caught.value.one_line()
    assert caught.value.param == "user"
    with pytest.raises(InvalidRequest, match="--user"):
        convert(source, ConvertOptions(assistant="Antwort", system_column="Frage", user="c"))
    with pytest.raises(InvalidRequest, match="same column"):
        convert(source, ConvertOptions(user="frage", assistant="FRAGE"))


def test_columns_whose_names_say_it_need_no_flags(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    source.write_text("id,Prompt,Completion\n1,a,b\n")
    report, rows = convert(source, ConvertOptions())
    assert pairs(rows) == [("a", "b")]
    assert "Column 'Prompt' is taken as --user." in report.notes


def test_the_system_message_is_fixed_or_from_a_column(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    source.write_text("q,a,s\n1,2,own\n3,4,\n")
    options = ConvertOptions("q", "a", system_column="S", system="fixed")
    _, rows = convert(source, options)
    assert [row["messages"][0] for row in rows] == [
        {"role": "system", "content": "own"},
        {"role": "system", "content": "fixed"},
    ]


def test_rows_that_are_no_records_are_dropped_counted_and_named(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    source.write_text('question,answer\n"a\nb",c\n,\n\nd,e,f\ng,h,\ni\n')
    report, rows = convert(source)
    assert pairs(rows) == [("a\nb", "c"), ("g", "h"), ("i", "")]
    assert report.dropped == {"empty row": 2, "more cells than columns": 1}
    assert "Dropped (empty row): line 4, 5." in report.notes
    assert any(n.startswith("Dropped (more cells than columns): line 6.") for n in report.notes)


@pytest.mark.parametrize("text", ['question,answer\na,"b\nc,d\n', 'question,answer\na,"b"c\n'])
def test_a_broken_quotation_is_an_error_with_its_line(text: str, tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    source.write_text(text)
    with pytest.raises(DataUnreadable, match="line 2"):
        convert(source)
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.jsonl.part").exists()


def test_long_cells_and_odd_line_ends_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "f.csv"
    long = "x" * 300_000
    source.write_bytes(f'question,answer\ra,"{long}\u2028\x0b"\r'.encode())
    _, rows = convert(source)
    assert pairs(rows) == [("a", long + "\u2028\x0b")]


def workbook(path: Path, *sheets: tuple[str, list[list[Any]], str]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows, state in sheets:
        sheet = book.create_sheet(name)
        sheet.sheet_state = state
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_sheet_gives_text_as_it_is_seen(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 11, 22)  # noqa: DTZ001  (workbooks know no zones)
    rows: list[list[Any]] = [
        [None, None],
        ["Question", "Answer", None],
        ["é", 3],
        [2.5, day],
        [True, day.replace(hour=9, minute=30)],
        [None, None],
        [12345678901234, datetime.time(9, 5)],
        ["x", None, "too much"],
    ]
    source = workbook(tmp_path / "f.xlsx", ("Data", rows, "visible"), ("Old", [["x"]], "hidden"))
    report, found = convert(source)
    assert pairs(found) == [
        ("é", "3"),
        ("2.5", "2026-11-22"),
        ("TRUE", "2026-11-22 09:30:00"),
        ("12345678901234", "09:05:00"),
    ]
    assert report.sheet == "Data"
    assert report.dropped == {"empty row": 1, "more cells than columns": 1}
    assert "Dropped (more cells than columns): line 8." in report.notes


def test_one_of_many_sheets_must_be_named(tmp_path: Path) -> None:
    good: list[list[Any]] = [["question", "answer"], ["a", "b"]]
    source = workbook(
        tmp_path / "f.xlsx",
        ("One", [["x"]], "visible"),
        ("Two", good, "visible"),
        ("Secret", good, "hidden"),
    )
    with pytest.raises(InvalidRequest, match="'One', 'Two'") as caught:
        convert(source)
    assert "--sheet" in caught.value.one_line()
    for name in ("two", "Secret"):
        _, rows = convert(source, ConvertOptions("question", "answer", sheet=name))
        assert pairs(rows) == [("a", "b")]
    with pytest.raises(InvalidRequest, match="no sheet 'Three'"):
        convert(source, ConvertOptions("question", "answer", sheet="Three"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"not a zip" * 100])
@pytest.mark.parametrize("name", ["f.xlsx", "f.parquet"])
def test_a_damaged_binary_file_is_unreadable(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataUnreadable, match=f"{name} (cannot be read|is )"):
        convert(tmp_path / name)


def test_objects_a_line_are_converted_and_bad_lines_named(tmp_path: Path) -> None:
    source = tmp_path / "f.jsonl"
    lines = ['{"Question": "a", "answer": 3}', "{", "", "[1]", '{"question": null, "answer": [1]}']
    source.write_text("\n".join(lines))
    report, rows = convert(source, ConvertOptions("question", "answer"))
    assert pairs(rows) == [("", "3"), ("", "[1]")]
    assert report.dropped == {"not JSON": 1, "not an object": 1}
    assert "Dropped (not an object): line 4." in report.notes


@pytest.mark.parametrize("wrap", [None, "data", "rows"])
def test_a_list_of_objects_is_converted(wrap: str | None, tmp_path: Path) -> None:
    source = tmp_path / "f.json"
    items = [{"question": q, "answer": a} for q, a in PAIRS]
    source.write_bytes(json.dumps(items if wrap is None else {wrap: items}).encode("utf-16"))
    _, rows = convert(source)
    assert pairs(rows) == PAIRS


@pytest.mark.parametrize("text", ["3", "{", '{"a": [], "b": []}', "[" * 100_000])
def test_json_that_is_no_table_is_unreadable(text: str, tmp_path: Path) -> None:
    source = tmp_path / "f.json"
    source.write_text(text)
    with pytest.raises(DataUnreadable):
        convert(source)


def test_chats_pass_as_they_are(tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": None}]},
        {"messages": [], "tools": [{"type": "function"}]},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, chats)))
    (tmp_path / "f.json").write_text(json.dumps(chats))
    for name in ("f.jsonl", "f.json"):
        _, rows = convert(tmp_path / name, ConvertOptions())
        assert rows == chats


def test_parquet_gives_tables_and_chats(tmp_path: Path) -> None:
    columns = {"question": [q for q, _ in PAIRS], "answer": [a for _, a in PAIRS]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "f.parquet")
    _, rows = convert(tmp_path / "f.parquet")
    assert pairs(rows) == PAIRS
    chats = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}],
    ]
    parquet.write_table(pyarrow.table({"messages": chats}), tmp_path / "g.parquet")
    _, rows = convert(tmp_path / "g.parquet", ConvertOptions())
    assert rows == [{"messages": chats[0]}]


def test_a_frame_gives_the_same_rows_as_its_file(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"Question": ["a", "b", None], "Answer": ["x", float("nan"), 3]})
    rows = convert_frame(frame, ConvertOptions("question", "answer", system="s"))
    assert pairs(rows) == [("a", "x"), ("b", ""), ("", "3")]
    frame.to_csv(tmp_path / "f.csv", index=False)
    _, from_file = convert(tmp_path / "f.csv", ConvertOptions("question", "answer", system="s"))
    assert from_file == rows


def test_flags_that_a_format_lacks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"question": "a", "answer": "b"}')
    for options in (ConvertOptions(sheet="x"), ConvertOptions(delimiter=",")):
        with pytest.raises(InvalidRequest, match="jsonl file has no"):
            convert(tmp_path / "f.jsonl", options)
    (tmp_path / "f.bin").write_text("x")
    with pytest.raises(InvalidRequest, match="no format"):
        convert(tmp_path / "f.bin")
    with pytest.raises(DataUnreadable, match="cannot be read"):
        convert(tmp_path / "missing.csv")
    with pytest.raises(InvalidRequest, match="would overwrite"):
        convert_file(tmp_path / "f.jsonl", tmp_path / "f.jsonl", ConvertOptions())


def test_a_workbook_that_was_made_to_fill_memory_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"x" * (20 << 20))
    with pytest.raises(DataUnreadable, match="times its size"):
        convert_file(path, tmp_path / "out", ConvertOptions())


def _parquet(path: Path, rows: list[dict[str, str]]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _workbook(path: Path, rows: list[dict[str, str]]) -> None:
    book = openpyxl.Workbook()
    for line in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.worksheets[0].append(line)
    book.save(path)


def _csv(path: Path, rows: list[dict[str, str]]) -> None:
    pandas.DataFrame(rows).to_csv(path, index=False)


def _jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "write", "in_bytes"),
    [
        ("f.csv", _csv, True),
        ("f.jsonl", _jsonl, True),
        ("f.json", lambda path, rows: path.write_text(json.dumps(rows)), False),
        ("f.parquet", _parquet, False),
        ("f.xlsx", _workbook, False),
        ("f.txt", lambda path, rows: path.write_text("".join(f"{r}\n" for r in rows)), True),
        ("g.jsonl", lambda path, rows: path.write_text(
            "".join(json.dumps(row) + "\n" for row in rows), "utf-16"), True),
    ],
)  # fmt: skip
def test_progress_rises_to_a_total_that_was_known_from_the_beginning(
    name: str, write: Any, in_bytes: bool, tmp_path: Path
) -> None:
    path, count = tmp_path / name, 5000
    write(path, [{"question": f"What is {n}?", "answer": f"{n + 7} " * 150} for n in range(count)])
    told: list[tuple[int, int]] = []
    convert_file(path, tmp_path / "out", ConvertOptions(), lambda *now: told.append(now))
    totals = {total for _, total in told}
    assert told == sorted(told)
    assert totals <= ({path.stat().st_size} if in_bytes else {count, count + 1})
    assert len(totals) == 1
    total = totals.pop()
    assert told[-1] == (total, total)
    middle = [done / total for done, _ in told[1:3]]
    assert 0.1 < middle[0] < middle[1] < 0.9
