"""Of several sheets the one whose columns say what they are is opened; the others can be chosen."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from afina.data.sheets import open_likely
from afina.errors import DataUnreadable


def workbook(path: Path, **sheets: list[list[str]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_the_sheet_with_questions_and_answers_is_opened_wherever_it_stands(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "w.xlsx",
        Notes=[["who", "when"], ["Ana", "May"]],
        Answers=[["Question", "Answer"], ["Hi?", "Hello."]],
    )
    source, sheets = open_likely(path)
    assert (source.sheet, sheets) == ("Answers", ("Notes", "Answers"))


def test_where_no_sheet_says_it_the_first_with_rows_is_opened(tmp_path: Path) -> None:
    path = workbook(tmp_path / "w.xlsx", Empty=[], First=[["a", "b"], ["1", "2"]], Other=[["c"]])
    source, sheets = open_likely(path)
    assert source.sheet == "First"
    assert "Empty" in sheets


def test_one_sheet_and_other_files_leave_nothing_to_choose(tmp_path: Path) -> None:
    path = workbook(tmp_path / "w.xlsx", Only=[["Question", "Answer"], ["Hi?", "Hello."]])
    assert open_likely(path)[1] == ()
    (tmp_path / "t.csv").write_text("question,answer\na,b\n")
    assert open_likely(tmp_path / "t.csv")[1] == ()


def test_a_title_above_columns_of_any_name_is_no_header(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "w.xlsx",
        Only=[["Our answers of 2026"], [], ["No", "What they ask", "What we say"], ["1", "a", "b"]],
    )
    source, _ = open_likely(path)
    assert source.columns == ("No", "What they ask", "What we say")
    assert "line 3" in source.notes[0].text


def test_a_workbook_without_rows_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="None of the 2 sheets"):
        open_likely(workbook(tmp_path / "w.xlsx", A=[], B=[]))
