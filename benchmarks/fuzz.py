"""Random files against the readers, the check, the redaction and the split: no crash, no wrong line.

    python benchmarks/fuzz.py [inputs] [seed]

Each input is mutated from good and bad lines of every kind. What must hold: lines are those of the
plain way of counting; a line is bad for its syntax exactly where the standard library says so;
counts add up; converting ends in rows or in a typed error; redacting keeps every line's number.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from afina.data.check import check_file
from afina.data.convert import ConvertOptions, convert_file
from afina.data.fixes import fix_file
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.personal.redaction import redact_file
from afina.data.rules.examples import EXAMPLES
from afina.errors import AfinaError

LINES = [
    *(text.encode() for example in EXAMPLES.values() for text in (example.bad, example.good)),
    b"question,answer", b'"a ""quoted"" one","two\nlines"', b"a;b;c", b"\xef\xbb\xbf{}", b"\xff\xfe",
    b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}', b"[" * 90, b"\x00",
    "{\"a\": \"\u2028 \u0085 é 日本 me@example.com +34 612 345 678\"}".encode(), b"", b" \t", b"9" * 4400,
]  # fmt: skip
SIGNS = [
    b"\n",
    b"\r",
    b"\r\n",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xc3",
    b"\x00",
    b"<EMAIL_9>",
]
SYNTAX = {
    "not-utf8", "not-json", "not-finite", "duplicate-key", "lone-surrogate", "too-deep", "line-too-long",
}  # fmt: skip
NAMES = ("f.csv", "f.tsv", "f.json", "f.jsonl", "f.txt", "f.xlsx", "f.parquet")


def made(chance: random.Random) -> bytes:
    """One random file."""
    lines = chance.choices(LINES, k=chance.randint(0, 6))
    content = bytearray(chance.choice([b"\n", b"\r\n", b"\r"]).join(lines))
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        at = chance.randint(0, len(content))
        cut = chance.choice([0, 0, 1, 3])
        content[at : at + cut] = chance.choice(SIGNS)
    return bytes(content)


def lines_of(content: bytes) -> list[bytes]:
    """The plain way of counting lines."""
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    pieces = content.split(b"\n")
    return pieces if pieces[-1] else pieces[:-1]


def is_strict(line: bytes) -> bool:
    """Whether the standard library reads a line as JSON, asked to be strict."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError
        return dict(items)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def try_one(content: bytes, folder: Path, name: str) -> None:
    """Raises AssertionError where a law is broken, or whatever else the code raises."""
    path, out = folder / "f", folder / "out"
    path.write_bytes(content)
    lines = lines_of(content)
    assert [line.raw for line in LineReader(path, 1 << 20)] == lines
    report = check_file(path, CheckLimits(min_rows=0), None)
    named = {f.line for f in report.findings if f.rule in SYNTAX}
    for number, line in enumerate(lines, 1):
        if line.strip() and line.count(b"[") + line.count(b"{") <= 60:
            assert (number in named) == (not is_strict(line)), (number, line)
    assert report.rows_total + report.blank_lines == len(lines)
    assert {f.line for f in report.findings if f.line} <= set(range(1, len(lines) + 1))
    redacted, _ = redact_file(path, out)
    assert redacted.rows == report.rows_total
    after = lines_of(out.read_bytes())
    # An empty first line keeps a byte order mark's worth of doubt: lines are compared by number.
    assert len(after) == len(lines), (len(after), len(lines))
    fixed = fix_file(path, out)
    assert fixed.rows_in == fixed.rows_out + fixed.rows_dropped == report.rows_total
    table = folder / name
    table.write_bytes(content)
    try:
        converted = convert_file(table, out, ConvertOptions())
    except AfinaError:
        return
    assert converted.rows_in == converted.rows_out + sum(converted.dropped.values())


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            chance = random.Random(f"{seed}:{number}")
            content = made(chance)
            try:
                try_one(content, Path(name), chance.choice(NAMES))
            except BaseException:
                print(f"input {number} of seed {seed}: {content!r}")
                raise
            if number % 20_000 == 19_999:
                print(f"{number + 1:,} inputs, {time.perf_counter() - begun:.0f} s", flush=True)
    print(f"{count:,} inputs without a crash or a wrong line, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
