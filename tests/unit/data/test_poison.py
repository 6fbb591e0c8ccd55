"""Poison files: each ends soon, with a finding on the right line or a typed error, in little memory.

The list is that of files which have broken importers: lines without an end, nesting without one,
numbers without bounds, archives that unpack to more than there is.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.content.survey import check_content
from afina.data.convert import ConvertOptions, convert_file
from afina.data.fixes import fix_file
from afina.data.lines import LineReader
from afina.data.readers import parquet as parquet_reader
from afina.data.uploads import upload_error
from afina.errors import AfinaError, DataUnreadable

GOOD = b'{"messages":[{"role":"user","content":"%b"},{"role":"assistant","content":"b"}]}'
FINE = GOOD % b"a"


def check(path: Path, content: bytes) -> CheckReport:
    path.write_bytes(content)
    return check_file(path, CheckLimits(min_rows=0), None)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (GOOD % (b"x" * (1 << 20)), None),
        (GOOD % "\u2028 \u2029 \u0085 \x7f".encode(), None),
        (GOOD % b"\\u0000", None),
        (GOOD % b"\\ud83d\\ude00", None),
        (GOOD % (b"x" * (9 << 20)), "line-too-long"),
        (GOOD % b"\xff\xfe", "not-utf8"),
        (GOOD % b"\xed\xa0\x80", "not-utf8"),
        (GOOD % b"\xc0\xaf", "not-utf8"),
        (b"\0" * 100, "not-json"),
        (GOOD % b"\0", "not-json"),
        (FINE.decode().encode("utf-16"), "not-utf8"),
        (b"[" * 100_000, "too-deep"),
        (b'{"a":' * 100_000, "too-deep"),
        (b"[" * 65 + b"]" * 65, "too-deep"),
        (b'{"messages":[],"messages":[]}', "duplicate-key"),
        (b'{"a": NaN}', "not-finite"),
        (b'{"a": [Infinity, -Infinity]}', "not-finite"),
        (b'{"a": 1e999}', "not-finite"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not-finite"),
        (b'{"a": 1' + b"0" * 400 + b"}", "missing-messages"),
        (GOOD % b"\\ud800", "lone-surrogate"),
        (b"=cmd|' /C calc'!A0", "not-json"),
        (b"PK\x03\x04" + b"\xff" * 50, "not-utf8"),
        (FINE * 2, "not-json"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_bad_line_is_named_by_its_number_and_rule(
    line: bytes, rule: str | None, end: bytes, tmp_path: Path
) -> None:
    lines = [FINE, b"", GOOD % b"c", line, GOOD % b"d"]
    report = check(tmp_path / "f", b"\xef\xbb\xbf" + end.join(lines))
    found = [(f.rule, f.line) for f in report.findings if f.severity == "error"]
    if rule is None:
        assert found == []
    else:
        assert found[0] == (rule, 4)
        assert list(report.bad_lines) == [4]
    check_content(tmp_path / "f")
    assert fix_file(tmp_path / "f", tmp_path / "out").rows_in == 4


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n", b" ", b"\xef\xbb\xbf", b"\n" * 1000])
def test_a_file_without_a_row_is_empty(content: bytes, tmp_path: Path) -> None:
    report = check(tmp_path / "f", content)
    assert [f.rule for f in report.findings] == ["empty-file"]
    assert upload_error(tmp_path / "f") is None


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    assert check(tmp_path / "f", FINE).rows_usable == 1
    assert check(tmp_path / "f", FINE + b"\n{").bad_lines.tolist() == [2]


@pytest.mark.long
def test_a_line_of_a_gigabyte_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with path.open("wb") as file:
        file.write(FINE + b"\n")
        file.seek(1 << 30)  # sparse: zeros that take no disk
        file.write(b"\n" + FINE)
    (finding,) = check_file(path, CheckLimits(min_rows=0), None).findings[:1]
    assert (finding.rule, finding.line) == ("line-too-long", 2)
    assert [line.size for line in LineReader(path, 1000)][2] == len(FINE)
    report = convert_file(path, tmp_path / "out", ConvertOptions())
    assert (report.rows_out, report.dropped) == (2, {"line too long": 1})


def workbook(path: Path, change: dict[str, bytes]) -> Path:
    """A good workbook in which parts are others; the sheet has `{more}` for more rows of XML."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["question", "answer"])
    sheet.append(["q", "a"])
    written = io.BytesIO()
    book.save(written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, "w", 8) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("sheet1.xml") and "rows" in change:
                content = content.replace(b"</sheetData>", change["rows"] + b"</sheetData>")
            if name.endswith("sheet1.xml") and "size" in change:
                content = re.sub(rb"<dimension[^>]*/>", change["size"], content)
            if name.endswith("sheet1.xml") and "head" in change:
                content = change["head"] + content
            target.writestr(name, content)
        if "part" in change:
            target.writestr("xl/media/inner.zip", change["part"])
    return path


FAR = b'<row r="1048576"><c r="XFD1048576" t="n"><v>1</v></c></row>'
LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "%b">%b]>' % (
    b"ha" * 50,
    b"".join(b'<!ENTITY %c "%b">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)),
)


def test_a_sheets_claimed_size_is_not_believed(tmp_path: Path) -> None:
    """Too small a one loses cells; the largest one makes a reader walk seventeen billion cells."""
    small = workbook(tmp_path / "f.xlsx", {"size": b'<dimension ref="A1"/>'})
    assert convert_file(small, tmp_path / "out", ConvertOptions()).rows_out == 1


@pytest.mark.long
def test_a_stray_cell_in_the_last_corner_costs_no_walk(tmp_path: Path) -> None:
    far = {"size": b'<dimension ref="A1:XFD1048576"/>', "rows": FAR}
    report = convert_file(workbook(tmp_path / "f.xlsx", far), tmp_path / "out", ConvertOptions())
    assert report.rows_out == 1
    assert report.dropped["more cells than columns"] == 1
    assert any("line 1048576" in note for note in report.notes)


def test_entities_that_unfold_are_not_unfolded(tmp_path: Path) -> None:
    row = b'<row r="3"><c r="A3" t="inlineStr"><is><t>&j;</t></is></c></row>'
    path = workbook(tmp_path / "f.xlsx", {"head": LAUGHS, "rows": row})
    with pytest.raises(DataUnreadable):
        convert_file(path, tmp_path / "out", ConvertOptions())


def test_a_part_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "f.xlsx", {"part": b"\0" * (64 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataUnreadable, match="times its size"):
        convert_file(path, tmp_path / "out", ConvertOptions())


def test_an_archive_in_an_archive_is_never_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("bomb", b"x")
    path = workbook(tmp_path / "f.xlsx", {"part": inner.getvalue()})
    assert convert_file(path, tmp_path / "out", ConvertOptions()).rows_out == 1
    path.write_bytes(inner.getvalue())
    with pytest.raises(DataUnreadable, match="no sheet"):
        convert_file(path, tmp_path / "out", ConvertOptions())


def test_row_groups_and_rows_beyond_all_sense_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.parquet"
    column = pyarrow.array(["q"]).dictionary_encode()
    many = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 2_000_000, pyarrow.int8()), column.dictionary
    )
    parquet.write_table(pyarrow.table({"question": many, "answer": many}), path)
    assert path.stat().st_size < 50_000
    with pytest.raises(DataUnreadable, match="claims 2,000,000 rows"):
        convert_file(path, tmp_path / "out", ConvertOptions())
    text = "word " * 40_000
    parquet.write_table(pyarrow.table({"question": [text], "answer": [text]}), path)
    monkeypatch.setattr(parquet_reader, "_MOST_UNPACKED", 1000)
    with pytest.raises(DataUnreadable, match="row group"):
        convert_file(path, tmp_path / "out", ConvertOptions())


def test_parquet_whose_facts_contradict_each_other_is_an_error_and_no_end_of_the_process(
    tmp_path: Path,
) -> None:
    """A column that is said to have no gaps, and how many there are: asked for single columns, the
    package ends the process."""
    path = tmp_path / "f.parquet"
    parquet.write_table(pyarrow.table({"question": [None, "q"], "answer": ["a", "b"]}), path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"%\x02\x18\x08question", b"%\x00\x18\x08question"))
    assert path.read_bytes() != content
    code = (
        "import sys, pathlib\n"
        "from afina.data.convert import ConvertOptions, convert_file\n"
        "from afina.errors import DataUnreadable\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n    convert_file(path, path.with_name('out'), ConvertOptions())\n"
        "except DataUnreadable as error:\n    print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "file_damaged\n"), done.stderr


@pytest.mark.parametrize(
    ("good", "bad"), [(b"question", b"quest\xc3on"), (b"needle", b"need\xc3e")]
)
def test_text_in_parquet_that_is_no_text_is_a_typed_error(
    good: bytes, bad: bytes, tmp_path: Path
) -> None:
    table = pyarrow.table({"question": ["needle"], "answer": ["a"]})
    parquet.write_table(table, tmp_path / "f.parquet", compression="none")
    content = (tmp_path / "f.parquet").read_bytes()
    (tmp_path / "f.parquet").write_bytes(content.replace(good, bad))
    with pytest.raises(AfinaError):
        convert_file(tmp_path / "f.parquet", tmp_path / "out", ConvertOptions())


def test_formulas_in_a_table_are_text_and_stay_it(tmp_path: Path) -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\ttab"]
    source = tmp_path / "f.csv"
    source.write_text("question,answer\n" + "".join(f'"{cell}",a\n' for cell in cells))
    report = convert_file(source, tmp_path / "out", ConvertOptions())
    rows = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == cells
    assert report.rows_out == len(cells)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('[{"question": "a", "question": "b", "answer": "c"}]', "1 object has a key twice"),
        ('[{"question": NaN, "answer": 1e999}]', "stands 2 times; it was read as null"),
    ],
)
def test_a_document_tells_what_it_holds_that_json_does_not(
    content: str, note: str, tmp_path: Path
) -> None:
    (tmp_path / "f.json").write_text(content)
    report = convert_file(tmp_path / "f.json", tmp_path / "out", ConvertOptions())
    assert any(note in said for said in report.notes)


def test_a_line_with_a_key_twice_is_dropped_by_that_name(tmp_path: Path) -> None:
    rows = [FINE, b'{"messages": [], "messages": []}']
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(rows))
    report = convert_file(tmp_path / "f.jsonl", tmp_path / "out", ConvertOptions())
    assert report.dropped == {"a key stands twice": 1}


BOUNDED = """
import resource, sys
from pathlib import Path
from afina.data.check import CheckLimits, check_file
from afina.data.convert import ConvertOptions, convert_file
from afina.errors import AfinaError
import openpyxl, pyarrow.parquet

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder = Path(sys.argv[1])
(folder / "warm.csv").write_text("question,answer\\na,b\\n")
convert_file(folder / "warm.csv", folder / "out", ConvertOptions())
before = peak()
for path in sorted(folder.glob("poison*")):
    check_file(path, CheckLimits(), None)
    try:
        convert_file(path, folder / "out", ConvertOptions())
    except AfinaError:
        pass
    print(path.name, peak() - before, flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_no_poison_takes_more_than_two_hundred_megabytes(tmp_path: Path) -> None:
    with (tmp_path / "poison-line.jsonl").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "poison-tiny.jsonl").write_bytes(b"{}\n" * 1_000_000)
    (tmp_path / "poison-blank.jsonl").write_bytes(b"\n" * 10_000_000)
    (tmp_path / "poison-deep.json").write_bytes(b"[" * 10_000_000)
    (tmp_path / "poison-deep.jsonl").write_bytes(b"[" * 10_000_000)
    (tmp_path / "poison-quote.csv").write_bytes(b'question,answer\n"' + b"x" * (15 << 20))
    workbook(tmp_path / "poison-part.xlsx", {"part": b"\0" * (64 << 20)})
    workbook(tmp_path / "poison-laughs.xlsx", {"head": LAUGHS, "rows": FAR})
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert len(grown) == 8
    assert max(grown.values()) <= 200, grown


def test_every_error_is_one_that_users_are_meant_to_see() -> None:
    assert issubclass(DataUnreadable, AfinaError)
