"""How fast files are checked: structural rules, content rules, redaction. One process, one thread.

python benchmarks/data.py [rows]
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


def measure(name: str, rows: int, work: Callable[[], object]) -> None:
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:12} {rows / seconds:12,.0f} rows/s  {seconds:6.2f} s  peak {peak:,.0f} MB",
        flush=True,
    )


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        write_rows(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / rows:.0f} bytes a row")
        measure("structural", rows, lambda: check_file(path, CheckLimits(), None))
        measure("content", rows, lambda: check_content(path))
        measure("redaction", rows, lambda: redact_file(path, out))


if __name__ == "__main__":
    main()
