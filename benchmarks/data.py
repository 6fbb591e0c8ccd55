"""How fast files are checked, and in how much memory: structural rules, content rules, redaction.

    python -m benchmarks.data structural|content|redaction [--rows 200000] [--repeats 3]
                              [--processes N] [--small] [--ceiling]

Rows are made on the fly: chats of this repository's own words in other orders; with `--small` the
shortest that there are, for runs of millions. `--ceiling` prints what parsing alone would do.
Memory is the most that this process held, and the largest of its helpers.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from afina.data.beside import processes_for
from afina.data.check import check_file
from afina.data.content.survey import check_content
from afina.data.limits import CheckLimits
from afina.data.personal.redaction import redact_file

TEXT = Path(__file__).parent.parent / "docs"


def write_rows(path: Path, rows: int) -> None:
    """Chats of this repository's own words, in other orders; one in fifty holds an address, one in
    fifty is a copy of another with a small change."""
    words = " ".join(
        p.read_text() for p in sorted(TEXT.rglob("*.md")) if p.name != "rules.md"
    ).split()
    chance = random.Random(1)

    def some(count: int) -> str:
        starts = [chance.randrange(len(words) - 4) for _ in range(count)]
        return " ".join(" ".join(words[at : at + 4]) for at in starts)

    with path.open("w") as out:
        for number in range(rows):
            if number % 50 != 1:
                asked, answer = f"{some(chance.randint(2, 6))}?", some(chance.randint(3, 12))
            answer += "."
            if number % 50 == 0:
                answer += f" Write to user{number}@example.com or +34 612 345 {number % 1000:03d}."
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer},
            ]
            out.write(json.dumps({"messages": messages}) + "\n")


def write_small_rows(path: Path, rows: int) -> None:
    """The smallest chats, each another one."""
    with path.open("w") as out:
        for start in range(0, rows, 10_000):
            out.writelines(
                f'{{"messages":[{{"role":"user","content":"What is {n} and {n + 7}?"}},'
                f'{{"role":"assistant","content":"It is {2 * n + 7}."}}]}}\n'
                for n in range(start, min(start + 10_000, rows))
            )


def peak_mb() -> tuple[float, float]:
    """The most that this process held, and the largest of its helpers."""
    own, helper = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own, helper


def print_ceiling(path: Path) -> None:
    """Parsing every row, and nothing else, in one thread."""
    for name, decoder in (("values", msgspec.json.Decoder()), ("nothing kept", Ceiling)):
        rows, begun = 0, time.perf_counter()
        with path.open("rb") as file:
            while text := b"".join(file.readlines(1 << 16)):
                rows += len(decoder.decode_lines(text))
        seconds = time.perf_counter() - begun
        print(f"ceiling, msgspec alone ({name}): {rows / seconds:,.0f} rows/s on one core")


class _Any(msgspec.Struct):
    """An object of which nothing is kept."""


Ceiling = msgspec.json.Decoder(_Any)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["structural", "content", "redaction"])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, help="None: as the command would")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--file", type=Path, help="where the rows are, or are written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, out = given.file or Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        if not path.exists():
            (write_small_rows if given.small else write_rows)(path, given.rows)
        size = path.stat().st_size
        print(f"{given.rows:,} rows, {size / given.rows:.0f} bytes a row, {size / 1e9:.2f} GB")
        if given.ceiling:
            print_ceiling(path)
        count: int | None = given.processes
        work: dict[str, Callable[[], object]] = {
            "structural": lambda: check_file(path, CheckLimits(), None, processes=count),
            "content": lambda: check_content(path, processes=count),
            "redaction": lambda: redact_file(path, out),
        }
        before = peak_mb()[0]
        rates = []
        for _ in range(given.repeats):
            begun = time.perf_counter()
            work[given.what]()
            rates.append(given.rows / (time.perf_counter() - begun))
        own, helper = peak_mb()
        print(
            f"{given.what}: {statistics.median(rates):,.0f} rows/s "
            f"({min(rates):,.0f} to {max(rates):,.0f}), {count or processes_for(path, 0)} "
            f"processes at most, memory {before:.0f} MB before, {own:.0f} MB at most, "
            f"helpers {helper:.0f} MB each at most"
        )


if __name__ == "__main__":
    main()
