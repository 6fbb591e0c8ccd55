"""Random files against every reader and every check: no crash, no hang, no wrong line.

    python -m benchmarks.fuzz [inputs] [seed] [--folder /dev/shm]

Inputs are lines of JSONL of every kind, tables, JSON documents, layouts of other makers, workbooks
and Parquet files, mutated byte by byte and in their structure, in several encodings. What must hold:

- lines are those of the plain way of counting, alone and in parts;
- a line is bad for its syntax exactly where the standard library, asked to be strict, says so;
- the check of parts is the check of the whole, and the quick yes for good lines changes nothing;
- counts add up; every line that is named exists;
- converting ends in rows or in a typed error; the lines named in notes exist;
- redacting, fixing and splitting lose no row and keep every line's number;
- each input ends within seconds of the processor's time, and within minutes of the clock's.

A run is repeated by its seed; any input of it too (`--only NUMBER`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.fuzz_inputs import NAMES, Input, made

from afina.data import chunks
from afina.data.check import check_file
from afina.data.chunks import chunks_of
from afina.data.content.survey import check_content
from afina.data.convert import ConvertOptions, convert_file
from afina.data.distributions import measure_rows
from afina.data.fixes import fix_file
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.personal.redaction import redact_file
from afina.data.split import SplitOptions, split_file
from afina.data.uploads import upload_error
from afina.errors import AfinaError

SYNTAX = {
    "not-utf8", "not-json", "not-finite", "duplicate-key", "lone-surrogate", "too-deep", "line-too-long",
}  # fmt: skip
LAYOUTS = (
    *(None, None, None),
    "chat",
    "sharegpt",
    "alpaca",
    "chatml",
    "pair",
    "preference",
    "gemini",
    "converse",
    "chatgpt",
    "claude",
    "eval",
    "columns",
)
SECONDS = 10
"""Of the processor: on a busy machine the clock says nothing about a hang."""
WAIT_S = 600
"""Of the clock: nothing waits for ever."""


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


def try_rows(content: bytes, folder: Path, chance: random.Random) -> None:
    """The laws of lines and of the check."""
    path, out = folder / "f", folder / "out"
    path.write_bytes(content)
    lines = lines_of(content)
    assert [line.raw for line in LineReader(path, 1 << 20)] == lines
    size = chance.randint(1, 200)
    parts = [x for part in chunks_of(path, size) for x in part.lines(path, 1 << 20)]
    assert [(x.number, x.raw) for x in parts] == list(enumerate(lines, 1))
    report = check_file(path, CheckLimits(min_rows=0), None)
    named = {f.line for f in report.findings if f.rule in SYNTAX}
    for number, line in enumerate(lines, 1):
        if line.strip() and line.count(b"[") + line.count(b"{") <= 60:
            assert (number in named) == (not is_strict(line)), (number, line)
    assert report.rows_total + report.blank_lines == len(lines)
    numbers = set(range(1, len(lines) + 1))
    assert {f.line for f in report.findings if f.line} <= numbers
    # comparing rows opens files and costs ten times as much as any other law
    laws = (same_in_parts, same_without_quick, others_hold)
    law = content_holds if chance.random() < 0.02 else chance.choice(laws)
    law(path, report, numbers, size)
    redacted, _ = redact_file(path, out)
    assert redacted.rows == report.rows_total
    after = lines_of(out.read_bytes())
    # An empty first line keeps a byte order mark's worth of doubt: lines are compared by number.
    assert len(after) == len(lines), (len(after), len(lines))
    fixed = fix_file(path, out)
    assert fixed.rows_in == fixed.rows_out + fixed.rows_dropped == report.rows_total


def same_in_parts(path: Path, report: Any, numbers: set[int], size: int) -> None:  # noqa: ARG001
    before, chunks.CHUNK_BYTES = chunks.CHUNK_BYTES, size
    try:
        assert check_file(path, CheckLimits(min_rows=0), None) == report
    finally:
        chunks.CHUNK_BYTES = before


def same_without_quick(path: Path, report: Any, numbers: set[int], size: int) -> None:  # noqa: ARG001
    with mock.patch("afina.data.inspection.plain_rows", return_value=None):
        assert check_file(path, CheckLimits(min_rows=0), None) == report


def content_holds(path: Path, report: Any, numbers: set[int], size: int) -> None:
    found = check_content(*[path] * (2 if size % 3 == 0 else 1))
    assert {f.line for f in found.findings if f.line} <= numbers
    assert measure_rows(path, report.kind).rows <= report.rows_total


def others_hold(path: Path, report: Any, numbers: set[int], size: int) -> None:
    refused = upload_error(path)
    if refused is not None:
        assert int(re.findall(r"Line (\d+)", refused.message)[0]) in numbers
    targets = path.with_name("train"), path.with_name("valid")
    try:
        split = split_file(path, *targets, SplitOptions(share=0.3, seed=size))
    except AfinaError:
        return
    assert split.rows == split.training + split.validation + split.dropped, split
    assert split.training + split.validation >= report.rows_usable, split


def options_for(given: Input, chance: random.Random) -> ConvertOptions:
    """What is asked of a file. Lines of text are read as such nearly always: what else can be asked
    for is refused before a line is read."""
    if given.name.endswith(".txt") and chance.random() < 0.9:
        layout, write = chance.choice([None, "pair"]), chance.choice(["chat", "pair"])
        return ConvertOptions(format=chance.choice([None, "txt"]), layout=layout, write=write)
    return ConvertOptions(
        layout=chance.choice(LAYOUTS),
        group=chance.choice([None] * 9 + ["id"]),
        system=chance.choice([None, None, "Be kind."]),
        write=chance.choice(["chat"] * 6 + ["pair", "sharegpt", "alpaca", "chatml", "preference"]),
    )


def try_table(given: Input, folder: Path, chance: random.Random) -> str:
    """The laws of converting; how it ended."""
    table, out = folder / given.name, folder / "out"
    table.write_bytes(given.content)
    try:
        done = convert_file(table, out, options_for(given, chance))
    except AfinaError as error:
        if not error.message.strip():
            raise AssertionError("an error says what happened") from error
        return type(error).__name__
    assert done.rows_in == done.rows_out + done.rows_joined + sum(done.dropped.values())
    assert len(lines_of(out.read_bytes())) == done.rows_out
    return "rows" if done.rows_out else "no rows"


def try_one(given: Input, folder: Path, chance: random.Random) -> str:
    """Raises AssertionError where a law is broken, or whatever else the code raises."""
    if given.is_rows:
        try_rows(given.content, folder, chance)
    return try_table(given, folder, chance)


def hung(*_: object) -> None:
    raise TimeoutError("the input takes too long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=1_000_000)
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("--folder", help="where files are written; one in memory is fastest")
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    signal.signal(signal.SIGPROF, hung)
    signal.signal(signal.SIGALRM, hung)
    numbers = range(asked.inputs) if asked.only is None else [asked.only]
    begun = time.perf_counter()
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        for number in numbers:
            chance = random.Random(f"{asked.seed}:{number}")
            given = made(chance)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, WAIT_S)
            try:
                ends[f"{given.name.split('.')[-1]}: {try_one(given, Path(name), chance)}"] += 1
            except BaseException:
                print(f"input {number} of seed {asked.seed}: {given.name} {given.content!r}")
                raise
            if number % 20_000 == 19_999:
                print(f"{number + 1:,} inputs, {time.perf_counter() - begun:.0f} s", flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{len(numbers):,} inputs of {', '.join(NAMES)} without a crash, a hang or a wrong line,")
    print(f"seed {asked.seed}, {time.perf_counter() - begun:.0f} s; {dict(sorted(ends.items()))}")


if __name__ == "__main__":
    main()
