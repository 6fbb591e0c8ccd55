"""What choosing 32 rows' tokens takes, by manner: through the kernels and by torch.

    python -m benchmarks.sampling [--rows 32] [--threads 1]

Rows of bf16 over the starter's vocabulary: one set with most of its mass in a few tokens, one with
all tokens about alike, the worst for top_p. Milliseconds of the process's own time, median of nine
(least to most), so with one thread a crowded machine is told from a quiet one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import torch

from afina.model.kernels import sampling as kernels
from afina.serving.penalties import Bias, Penalties, Reshaping
from afina.serving.sampling import Choosing, choose, draw_by_torch, list_by_torch

VOCABULARY, ROUNDS = 49_152, 9
PENALTIES: Final = partial(Penalties, 0.5, 0.5)
BIASES: Final = partial(Bias, dict.fromkeys(range(300), 1.0))


def taken(what: Callable[[], object]) -> str:
    """Its milliseconds, as a cell."""
    what()
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        what()
        found.append(1000 * (time.process_time() - begun))
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def ways(
    count: int, temperature: float, top_p: float = 1.0, made: Callable[[], Reshaping] | None = None
) -> list[Choosing]:
    """Rows that choose alike, each of an answer of 100 tokens."""
    said = list(range(100))
    return [
        Choosing(1, 0, i, temperature, top_p, None, made() if made else None, said)
        for i in range(count)
    ]


def measure(name: str, logits: torch.Tensor) -> None:
    """Prints a line for each manner."""
    count = len(logits)
    manners = {
        "greedy": ways(count, 0.0),
        "temperature 1": ways(count, 1.0),
        "temperature 1, top_p 0.9": ways(count, 1.0, 0.9),
        "temperature 0.7, top_p 0.95": ways(count, 0.7, 0.95),
        "greedy, penalties": ways(count, 0.0, made=PENALTIES),
        "temperature 1, penalties": ways(count, 1.0, made=PENALTIES),
        "greedy, 300 biases": ways(count, 0.0, made=BIASES),
        "temperature 1, top_p 0.9, 300 biases": ways(count, 1.0, 0.9, BIASES),
    }
    for manner, how in manners.items():
        drawn = how[0].temperature > 0 and how[0].reshaping is None
        by_torch = taken(partial(draw_by_torch, logits, how)) if drawn else ""
        print(f"{name}, {manner}: {taken(partial(choose, logits, how))}; torch {by_torch or '-'}")
    tokens = [7] * count
    for most in (0, 20):
        by_torch = taken(partial(list_by_torch, logits, tokens, most))
        if kernels.takes(logits):
            cell = taken(partial(kernels.listed, logits, range(count), tokens, most))
            print(f"{name}, log-probabilities and the best {most}: {cell}; torch {by_torch}")


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(given.rows, VOCABULARY, generator=source)
    peaks = torch.randint(VOCABULARY, (given.rows, 5), generator=source)
    measure("peaked", (2.2 * noise).scatter(1, peaks, 14.0).bfloat16())
    measure("flat", (0.1 * noise).bfloat16())


if __name__ == "__main__":
    main()
