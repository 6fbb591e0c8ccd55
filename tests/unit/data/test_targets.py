"""What a function that writes rows never writes over, whoever calls it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from afina.data.check import CheckLimits, check_file, write_clean
from afina.data.convert import ConvertOptions, convert_file
from afina.data.fixes import fix_file
from afina.data.moderation.report import write_others
from afina.data.personal.redaction import redact_file, restore_file
from afina.data.split import SplitOptions, split_file
from afina.errors import InvalidRequest

ROWS = "".join(f'{{"prompt": "p{n}", "completion": "c"}}\n' for n in range(12))
WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "convert": lambda path, target: convert_file(path, target, ConvertOptions(format="jsonl")),
    "fix": fix_file,
    "clean": lambda path, target: write_clean(path, check_file(path, CheckLimits(), None), target),
    "others": lambda path, target: write_others(path, target, {1}),
    "redact": redact_file,
    "restore": lambda path, target: restore_file(path, target, {}),
    "split": lambda path, target: split_file(
        path, target, target.with_name("other"), SplitOptions(share=0.5)
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
@pytest.mark.parametrize("name", ["rows.jsonl", "folder", "pipe", "no/where", "partial"])
def test_no_writer_takes_the_place_of_its_source_or_of_what_is_no_file(
    write: Callable[[Path, Path], object], name: str, tmp_path: Path
) -> None:
    path = tmp_path / ("partial.part" if name == "partial" else "rows.jsonl")
    path.write_text(ROWS)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest):
        write(path, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert path.read_text() == ROWS
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_every_writer_replaces_a_file_that_was_there(
    write: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    path, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text(ROWS)
    target.write_text("before")
    write(path, target)
    assert "before" not in target.read_text()


def test_functions_take_the_names_of_files_as_pandas_does(tmp_path: Path) -> None:
    def name(file: str) -> str:
        return str(tmp_path / file)

    Path(name("q.csv")).write_text(
        "question,answer\n" + "".join(f"Call 612 345 67{n}?,Yes {n}.\n" for n in range(4))
    )
    convert_file(name("q.csv"), name("rows.jsonl"), ConvertOptions())
    report = check_file(name("rows.jsonl"), CheckLimits(), None)
    assert write_clean(name("rows.jsonl"), report, name("clean.jsonl")).rows_out == 4
    assert fix_file(name("clean.jsonl"), name("fixed.jsonl")).rows_in == 4
    options = SplitOptions(share=0.5)
    assert split_file(name("fixed.jsonl"), name("t.jsonl"), name("v.jsonl"), options).rows == 4
    _, places = redact_file(
        name("fixed.jsonl"), name("safe.jsonl"), audit=name("audit.jsonl"), keep_values=True
    )
    restore_file(name("safe.jsonl"), name("again.jsonl"), places.values)
    assert Path(name("again.jsonl")).read_bytes() == Path(name("fixed.jsonl")).read_bytes()
