"""Readers and the check on random bytes: never a crash, never a wrong line, counts that add up."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.check import CheckLimits, check_file, write_clean
from afina.data.convert import ConvertOptions, convert_file
from afina.data.lines import LineReader
from afina.data.readers.delimited import read_delimited
from afina.data.readers.records import Dropped, ReadOptions
from afina.data.uploads import upload_error
from afina.errors import AfinaError
from afina.text.renderer import Renderer

LAW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCRAPS = st.sampled_from(
    [
        *(
            sign.encode()
            for sign in ("\n", "\r", "\r\n", ",", ";", "\t", '"', '""', " ", "\u2028", "é")
        ),
        *(sign.encode() for sign in ("{", "}", "[", "]", ":", "question", "answer", "NaN", "null")),
        *(sign.encode() for sign in ("\\u0022", "\\ud800", "1e999", '"a":1', '{"messages": []}')),
        *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xe9"),
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',
    ]
)
BYTES = st.one_of(st.lists(SCRAPS, max_size=40).map(b"".join), st.binary(max_size=200))


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def lines_of(content: bytes) -> list[bytes]:
    """The plain way of counting lines."""
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    pieces = content.split(b"\n")
    return pieces if pieces[-1] else pieces[:-1]


@LAW
@given(content=BYTES)
def test_lines_are_those_of_the_plain_way(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    found = list(LineReader(tmp_path / "f", 1000))
    assert [line.raw for line in found] == lines_of(content)
    assert [line.number for line in found] == list(range(1, len(found) + 1))


@LAW
@given(content=BYTES)
def test_the_check_of_anything_adds_up(content: bytes, tmp_path: Path, renderer: Renderer) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    report = check_file(path, CheckLimits(min_rows=1, max_line_bytes=120), renderer)
    lines = lines_of(content)
    assert report.rows_total + report.blank_lines == len(lines)
    assert report.rows_total == report.rows_usable + len(report.bad_lines)
    assert sum(report.counts.values()) == len(report.findings) + report.findings_left_out
    assert {f.line for f in report.findings if f.line} <= set(range(1, len(lines) + 1))
    assert len(set(report.bad_lines)) == len(report.bad_lines)
    cleaned = write_clean(path, report, tmp_path / "clean")
    assert cleaned.rows_out == report.rows_usable
    again = check_file(tmp_path / "clean", CheckLimits(min_rows=0), renderer)
    assert not again.bad_lines
    assert again.rows_total == report.rows_usable
    assert (again.tokens, again.learned_tokens) == (report.tokens, report.learned_tokens)


@LAW
@given(content=BYTES)
def test_a_line_is_bad_exactly_where_json_says_so(content: bytes, tmp_path: Path) -> None:
    """The fast parser and the careful rules never disagree with the standard library."""
    path = tmp_path / "f"
    path.write_bytes(content)
    report = check_file(path, CheckLimits(), None)
    syntax = {"not-utf8", "not-json", "not-finite", "duplicate-key", "lone-surrogate"}
    named = {f.line for f in report.findings if f.rule in syntax}
    for number, line in enumerate(lines_of(content), 1):
        if line.strip():
            assert (number in named) == (not _strict(line)), line


def _strict(line: bytes) -> bool:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError
        return dict(items)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError:
        return False
    return True


@LAW
@given(
    content=BYTES,
    name=st.sampled_from(["f.csv", "f.tsv", "f.jsonl", "f.json", "f.xlsx", "f.parquet", "f.txt"]),
)
@example(content=b"\xff\xfe\n", name="f.csv")
@example(content=b"\xef\xbb\xbf\xff\xfe", name="f.csv")
@example(content=b"\xef\xbb\xbf\xff\xfe", name="f.json")
def test_converting_anything_ends_in_rows_or_a_typed_error(
    content: bytes, name: str, tmp_path: Path
) -> None:
    source, target = tmp_path / name, tmp_path / "out"
    target.unlink(missing_ok=True)
    source.write_bytes(content)
    try:
        report = convert_file(source, target, ConvertOptions())
    except AfinaError:
        assert not target.exists()
        return
    finally:
        upload_error(source)
    assert report.rows_in == report.rows_out + sum(report.dropped.values())
    assert len(lines_of(target.read_bytes())) == report.rows_out


CELLS = st.text(st.sampled_from('ab é"\n,;\t“日'), max_size=8)


@LAW
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    delimiter=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_comes_back_cell_by_cell_with_its_lines(
    rows: list[tuple[str, str]], delimiter: str, end: str, encoding: str, tmp_path: Path
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    lines = []
    for row in [("question", "answer"), *rows]:
        text = out.getvalue().replace("\r\n", "\n").replace("\r", "\n")
        lines.append(text.count("\n") + 1)
        writer.writerow(row)
    path = tmp_path / "f.csv"
    path.write_bytes(out.getvalue().encode(encoding))
    options = ReadOptions(delimiter=delimiter, wanted=("question", "answer"))
    found = list(read_delimited(path, options).records)
    assert [item.line for item in found] == lines[1:]
    for item, row in zip(found, rows, strict=True):
        if isinstance(item, Dropped):
            assert not any(cell.strip() for cell in row)
        else:
            assert tuple(item.values.values()) == row
