"""From a file of chats to shards: tokens a second, and the most memory that it took.

    python benchmarks/tokenise.py [--rows 40000] [--repeats 3]

Rows are chats with a system prompt, as in benchmarks/training.py, each with words of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

from afina.data.shards import build_shards
from afina.text.renderer import Renderer

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
TEXT = (
    "the claim was reported in time and the policy covers damage by water but not by wear so the "
    "clerk asks for the invoice a photo of the pipe and the date of the last repair before paying"
)
SYSTEM = (
    "You are a careful claims clerk. Name the clause that applies, and never promise a payment."
)


def write_rows(path: Path, count: int) -> None:
    source = random.Random(0)
    words = TEXT.split()
    with path.open("w") as file:
        for number in range(count):
            question = " ".join(source.choices(words, k=20))
            answer = " ".join(source.choices(words, k=source.randint(10, 240)))
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{number}: {question}?"},
                {"role": "assistant", "content": f"{answer.capitalize()}."},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def peak_mib() -> float:
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return max(own, children) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rates = []
    with tempfile.TemporaryDirectory(prefix="afina-tokenise-") as name:
        blob = Path(name) / "rows.jsonl"
        write_rows(blob, given.rows)
        renderer = Renderer.load(given.model)
        before = peak_mib()
        for repeat in range(given.repeats):
            began = time.perf_counter()
            made = build_shards(blob, renderer, Path(name) / f"shards-{repeat}")
            seconds = time.perf_counter() - began
            rates.append(made.tokens / seconds)
            print(f"  {made.rows} rows, {made.tokens} tokens in {seconds:.2f} s", flush=True)
        size = blob.stat().st_size / (1 << 20)
    print(
        f"{statistics.median(rates) / 1e6:.2f} million tokens/s "
        f"({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f}), file {size:.0f} MiB, "
        f"memory {before:.0f} MiB before and {peak_mib():.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
