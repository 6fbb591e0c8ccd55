"""DataFrames become the rows that the same table becomes as a file, whatever stands in their cells."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import uuid
import warnings
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pyarrow
import pytest

from afina.data.convert import ConvertOptions, convert_file, convert_frame
from afina.errors import InvalidRequest

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def both(frame: Any, folder: Path, **options: Any) -> list[Any]:
    """The rows of a frame, after they were found to be those of its Parquet file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = convert_frame(frame, ConvertOptions(**options))
    source, target = folder / "frame.parquet", folder / "rows.jsonl"
    frame.to_parquet(source)
    convert_file(source, target, ConvertOptions(**options))
    assert [json.loads(line) for line in target.read_text("utf-8").splitlines()] == rows
    return rows


@pytest.mark.parametrize(
    "cells",
    [
        [pandas.Timestamp("2026-01-02"), pandas.NaT],
        [pandas.NA, 3],
        [b"\xff\x00", None],
        [datetime.date(2026, 1, 2), None],
        [float("nan"), 1.5],
        ["a", None],
    ],
)
def test_whatever_stands_beside_chats_no_frame_is_refused(cells: list[Any]) -> None:
    frame = pandas.DataFrame({"messages": [CHAT, CHAT]})
    frame["beside"] = pandas.Series(cells, dtype=object)
    with pytest.warns(UserWarning, match='"beside" stands beside the messages of 1 chats?'):
        rows = convert_frame(frame, ConvertOptions())
    assert [row["messages"] for row in rows] == [CHAT, CHAT]
    assert sorted(len(row) for row in rows) == [1, 2], "what is missing is no key"


def test_cells_of_a_frame_are_written_as_their_reader_sees_them() -> None:
    day = datetime.date(2026, 1, 2)
    frame = pandas.DataFrame(
        {
            "q": [
                pandas.Timestamp(day),
                pandas.Timestamp("2026-01-02 10:30"),
                day,
                decimal.Decimal("1.50"),
                uuid.UUID(int=7),
                pandas.Timedelta("1h"),
                True,
                2.0,
            ],
            "a": "x",
        }
    )
    rows = convert_frame(frame, ConvertOptions(user="q", assistant="a"))
    said = [row["messages"][0]["content"] for row in rows]
    assert said == [
        *("2026-01-02", "2026-01-02 10:30:00", "2026-01-02", "1.50"),
        *(str(uuid.UUID(int=7)), "1:00:00", "true", "2"),
    ]


def test_bytes_that_are_text_are_read_and_others_cost_their_row(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"question": ["¿Sí?".encode(), b"\xff\xfe"], "answer": [b"Yes", b"No"]}
    )
    rows = both(frame, tmp_path)
    assert [m["content"] for m in rows[0]["messages"]] == ["¿Sí?", "Yes"]
    assert len(rows) == 1
    with pytest.warns(UserWarning, match="bytes that are no text.: line 2"):
        convert_frame(frame, ConvertOptions())
    grouped = frame.assign(chat="one")
    assert len(both(grouped, tmp_path, group="chat")[0]["messages"]) == 2


def test_columns_of_the_same_name_are_told_apart_as_in_a_file() -> None:
    frame = pandas.DataFrame([["Hi", "Yes", "No"]], columns=["question", "answer", "answer"])
    with pytest.warns(UserWarning, match=r"Not used: 'answer \(2\)'"):
        first = convert_frame(frame, ConvertOptions())
    with pytest.warns(UserWarning, match="Not used: 'answer'"):
        second = convert_frame(frame, ConvertOptions(assistant="answer (2)"))
    assert [rows[0]["messages"][1]["content"] for rows in (first, second)] == ["Yes", "No"]


def test_a_number_of_a_sheet_has_the_digits_that_the_sheet_shows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["question", "answer"], ["share", 0.30000000000000004], ["sum", 1234567.89]):
        book.worksheets[0].append(row)
    raw = tmp_path / "sums.xlsx"
    book.save(raw)
    convert_file(raw, tmp_path / "rows.jsonl", ConvertOptions())
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in rows] == ["0.3", "1234567.89"]


def test_the_pages_lines_for_python_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("1 ['too-few-rows'")


def test_an_index_with_a_name_is_said_to_be_no_column() -> None:
    frame = pandas.DataFrame({"chat": [1, 2], "question": ["a", "b"], "answer": ["c", "d"]})
    with pytest.warns(UserWarning, match="Not used: the index 'chat'; frame.reset_index()"):
        rows = convert_frame(frame.set_index("chat"), ConvertOptions())
    assert len(rows) == 2


@pytest.mark.parametrize(
    "given", [None, "x.csv", [{"question": "a"}], {"question": ["a"]}, pandas.Series(["a"])]
)
def test_what_is_no_frame_is_refused_by_name(given: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"a {type(given).__name__} is none"):
        convert_frame(given, ConvertOptions())


def test_a_table_of_arrow_is_refused_with_its_way_to_a_frame() -> None:
    with pytest.raises(InvalidRequest) as told:
        convert_frame(pyarrow.table({"question": ["a"]}), ConvertOptions())
    assert told.value.remedy == "Give its to_pandas()."


@pytest.mark.parametrize("option", ["format", "encoding", "delimiter", "sheet", "keep_broken"])
def test_what_is_said_of_files_is_refused_for_a_frame(option: str) -> None:
    frame = pandas.DataFrame({"question": ["a"], "answer": ["b"]})
    given: dict[str, Any] = {option: "csv"}
    with pytest.raises(InvalidRequest, match=f"has no {option}"):
        convert_frame(frame, ConvertOptions(**given))
