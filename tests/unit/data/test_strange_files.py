"""Files that a stranger brings: what is not as it looks is told, with what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import pytest
from tests.unit.data.test_ugly_files import CHATS, convert

from afina.data.convert import ConvertOptions, convert_file, convert_frame
from afina.errors import InvalidRequest


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
        'The key "source" stands beside the messages of 1 chats, the first in line 1'
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
