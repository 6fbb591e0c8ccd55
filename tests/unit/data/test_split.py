"""Splits: nothing is lost, copies and groups stay together, each answer keeps its share."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from afina.data.content.survey import check_content
from afina.data.split import SplitOptions, SplitReport, split_file
from afina.errors import InvalidRequest


def row(asked: str, answer: str = "Yes", **more: Any) -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, **more})


def split(path: Path, rows: list[str], **options: Any) -> tuple[list[str], list[str], SplitReport]:
    (path / "f").write_text("\n".join(rows))
    report = split_file(path / "f", path / "t", path / "v", SplitOptions(**options))
    training, validation = ((path / name).read_text().splitlines() for name in "tv")
    assert (report.training, report.validation) == (len(training), len(validation))
    assert report.rows == report.training + report.validation + report.dropped
    return training, validation, report


def test_nothing_is_lost_and_copies_stay_together(tmp_path: Path) -> None:
    rows = [row(f"question {n % 150}", f"answer {n}") for n in range(300)]
    training, validation, report = split(tmp_path, rows, share=0.3)
    assert sorted(training + validation) == sorted(rows)
    asked = [
        {json.loads(r)["messages"][0]["content"] for r in side} for side in (training, validation)
    ]
    assert not asked[0] & asked[1]
    assert 60 < len(validation) < 120
    assert report.groups == 150
    assert "leaked-row" not in check_content(tmp_path / "t", tmp_path / "v").counts


def test_a_row_goes_to_the_same_side_whatever_else_there_is(tmp_path: Path) -> None:
    rows = [row(f"question {n}") for n in range(100)]
    _, first, _ = split(tmp_path, rows)
    _, again, _ = split(tmp_path, [row(f"more {n}") for n in range(50)] + rows[::-1])
    assert set(first) <= set(again)
    assert set(split(tmp_path, rows, seed=1)[1]) != set(first)


def test_a_group_is_on_one_side_only(tmp_path: Path) -> None:
    rows = [row(f"q {n}", metadata={"case": n % 20}) for n in range(200)]
    training, validation, report = split(tmp_path, rows, by="group", group="case", share=0.4)
    sides = [{json.loads(r)["metadata"]["case"] for r in side} for side in (training, validation)]
    assert not sides[0] & sides[1]
    assert report.groups == 20
    with pytest.raises(InvalidRequest, match="no 'person'"):
        split(tmp_path, rows, by="group", group="person")


def test_each_answer_keeps_its_share(tmp_path: Path) -> None:
    answers = ["yes"] * 200 + ["no"] * 40 + ["maybe"] * 2
    rows = [row(f"q {n}", answer) for n, answer in enumerate(answers)]
    _, validation, report = split(tmp_path, rows, by="answer", share=0.1)
    counts = Counter(json.loads(r)["messages"][1]["content"] for r in validation)
    assert counts == {"yes": 20, "no": 4, "maybe": 1}
    assert report.groups == 3


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    _, _, report = split(tmp_path, [row("a"), "{", "", "[1]", row("b")])
    assert (report.rows, report.dropped) == (4, 2)


@pytest.mark.parametrize(
    "wrong", [{"share": 0}, {"share": 1.0}, {"by": "x"}, {"by": "group"}, {"group": "x"}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        split(tmp_path, [row("a")], **wrong)


def test_a_row_without_its_group_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = '{"messages": [{"role": "user", "content": "q"}], "region": "north"}'
    path.write_text(f"{row}\n\n{row}\n{row.replace('region', 'other')}\n")
    options = SplitOptions(by="group", group="region")
    with pytest.raises(InvalidRequest, match="The row in line 4 has no 'region'"):
        split_file(path, tmp_path / "a", tmp_path / "b", options)
    assert not list(tmp_path.glob("*.part"))
