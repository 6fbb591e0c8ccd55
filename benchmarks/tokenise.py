"""From a file of chats to shards: tokens a second, and the most memory that it took.

    python -m benchmarks.tokenise [--rows 40000] [--repeats 3] [--processes N] [--check] [--ceiling]
                                  [--varied | --small | --file JSONL]

Rows are chats with a system prompt, as in benchmarks/training.py, each with words of its own order;
with `--varied` of 60,000 words, about as common as a language's own; `--small` writes the shortest
chats that there are, for runs of millions. `--file` takes what is there.
`--check` counts tokens as `afina data check --model` does, and writes no shards; `--ceiling` prints
what the package `tokenizers` alone does with the same texts, on one thread and on two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import write_small_rows

from afina.data.check import CheckLimits, check_file
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


def write_varied_rows(path: Path, count: int) -> None:
    """Words that nobody says, the n-th as common as 1 / (n + 3), with signs and numbers."""
    source = random.Random(3)
    starts = (*"bcdfglmnprstv", "tr", "st", "pl", "ch", "qu")
    syllables = [s + v for s in starts for v in (*"aeiou", "ai", "er", "on", "ión")]
    words = ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(60_000)]
    shares = list(itertools.accumulate(1 / (n + 3) for n in range(len(words))))
    ends = ["", ",", ".", ":", f" {source.randint(0, 9999)}", ".\n\n"]

    def some(length: int) -> str:
        drawn = source.choices(words, cum_weights=shares, k=length)
        signs = source.choices(ends, weights=[80, 8, 5, 2, 3, 1], k=length)
        return " ".join(map(str.__add__, drawn, signs))

    with path.open("w") as file:
        for _ in range(count):
            messages = [
                {"role": "user", "content": some(20)},
                {"role": "assistant", "content": some(source.randint(10, 200))},
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def peak_mib() -> tuple[float, float]:
    """The most that this process held, and the largest of its helpers."""
    own, helper = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own, helper


CEILING = """
import json, sys, time
from tokenizers import Tokenizer
whole = Tokenizer.from_file(sys.argv[1])
texts = [" ".join(m["content"] for m in json.loads(line)["messages"]) for line in open(sys.argv[2])]
whole.encode_batch_fast(texts[:1000])
begun = time.perf_counter()
count = sum(len(e) for e in whole.encode_batch_fast(texts))
print(f"{count / (time.perf_counter() - begun) / 1e6:.2f}")
"""


def print_ceiling(model: Path, blob: Path) -> None:
    """The package alone, in a process of its own for each number of threads."""
    for threads in (1, 2):
        said = subprocess.run(
            [sys.executable, "-c", CEILING, str(model / "tokenizer.json"), str(blob)],
            env={**os.environ, "RAYON_NUM_THREADS": str(threads)},
            capture_output=True,
            check=True,
            text=True,
        )
        print(f"ceiling, tokenizers alone, {threads} threads: {said.stdout.strip()} million/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, help="None: as a job would")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--varied", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    rates = []
    with tempfile.TemporaryDirectory(prefix="afina-tokenise-") as name:
        blob = given.file or Path(name) / "rows.jsonl"
        if given.file is None:
            write = write_small_rows if given.small else write_rows
            (write_varied_rows if given.varied else write)(blob, given.rows)
        if given.ceiling:
            print_ceiling(given.model, blob)
        renderer = Renderer.load(given.model)
        before = peak_mib()[0]
        for repeat in range(given.repeats):
            began = time.perf_counter()
            if given.check:
                tokens = check_file(blob, CheckLimits(), renderer, processes=given.processes).tokens
            else:
                target = Path(name) / f"shards-{repeat}"
                tokens = build_shards(blob, renderer, target, processes=given.processes).tokens
            seconds = time.perf_counter() - began
            rates.append(tokens / seconds)
            print(f"  {tokens} tokens in {seconds:.2f} s", flush=True)
        size = blob.stat().st_size / (1 << 20)
    own, helper = peak_mib()
    print(
        f"{statistics.median(rates) / 1e6:.2f} million tokens/s "
        f"({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f}), file {size:.0f} MiB, "
        f"memory {before:.0f} MiB before, {own:.0f} MiB at most, "
        f"helpers {helper:.0f} MiB each at most"
    )


if __name__ == "__main__":
    main()
