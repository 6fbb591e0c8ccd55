"""Files that are made to hurt: each is read in a process of its own, with a bound on its memory, and
ends in findings with the right line or in a typed refusal."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

ROW: Final = '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'
MOST_MB: Final = 200
_READS: Final = """
import json, resource, sys
from pathlib import Path
from afina.data.check import check_file
from afina.data.convert import ConvertOptions, convert_file
from afina.data.limits import CheckLimits
from afina.errors import AfinaError

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

path, what, before = Path(sys.argv[1]), sys.argv[2], peak()
try:
    if what == "check":
        report = check_file(path, CheckLimits(), None)
        told = [[finding.rule, finding.line] for finding in report.findings]
    else:
        convert_file(path, path.with_suffix(".out"), ConvertOptions())
        told = "converted"
except AfinaError as error:
    told = type(error).__name__
print(json.dumps([told, peak() - before]))
"""


def _huge_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(ROW.encode() + b'\n{"a":"')
        for _ in range(1024):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n')


def _utf16(path: Path) -> None:
    path.write_text(f"{ROW}\n{ROW}", encoding="utf-16")


def _bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("xl/worksheets/sheet1.xml", "w") as file,
    ):
        for _ in range(300):
            file.write(b"x" * 1_000_000)


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"0" * 20_000_000))


def _groups(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 500_000
    table = pa.table({"question": ["x" * 200] * count, "answer": ["y"] * count})
    pq.write_table(table, path, row_group_size=count, compression="zstd")


def _text(*lines: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes("\n".join(lines).encode())


POISON: Final[dict[str, tuple[Callable[[Path], object], str, Any]]] = {
    "a line of 1 MB": (_text(ROW, '{"a":"' + "x" * 1_000_000 + '"}'), "check", 2),
    "a line of 1 GB": (_huge_line, "check", 2),
    "UTF-16": (_utf16, "check", 1),
    "no end of brackets": (_text(ROW, "[" * 100_000), "check", 2),
    "objects without end": (_text('{"a":' * 100_000 + "1" + "}" * 100_000, ROW), "check", 1),
    "a key twice": (_text(ROW, '{"messages":[],"messages":[]}'), "check", 2),
    "NaN": (_text(ROW, '{"a": NaN}'), "check", 2),
    "a number beyond floats": (_text('{"a": 1e400}', ROW), "check", 1),
    "a lone surrogate": (_text(ROW, ROW.replace('"q"', r'"\ud800"')), "check", 2),
    "NUL": (_text(ROW, "\x00\x00"), "check", 2),
    "something packed": (_gzip, "check", 1),
    "a list without end.json": (_text("[" * 100_000), "convert", "DataUnreadable"),
    "a bomb.xlsx": (_bomb, "convert", "DataUnreadable"),
    "no workbook.xlsx": (_text("PK\x03\x04"), "convert", "DataUnreadable"),
    "one huge group.parquet": (_groups, "convert", "converted"),
    "formulas.csv": (_text("question,answer", '=HYPERLINK("x"),+1'), "convert", "converted"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POISON)
def test_a_poison_file_is_named_by_line_or_refused_within_its_memory(
    name: str, tmp_path: Path
) -> None:
    make, what, expected = POISON[name]
    path = tmp_path / (name if "." in name else f"{name}.jsonl")
    make(path)
    done = subprocess.run(
        [sys.executable, "-c", _READS, str(path), what], capture_output=True, text=True, check=True
    )
    told, grew = json.loads(done.stdout)
    path.unlink()
    if isinstance(expected, int):
        lines = [line for _, line in told if line is not None]
        assert min(lines) == expected
    else:
        assert told == expected
    assert grew < MOST_MB
