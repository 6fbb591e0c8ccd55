"""Is `auto` good? Five small tasks with held-out questions, judged by what the models answer.

    python -m benchmarks.quality [--tasks voice,sql] [--arms plain,trl,auto] [--seeds 3]

Every arm answers greedily, through afina's engine, in the same template. Raw answers are kept under
--cache, so a run that was cut off goes on, and a judge can be changed without asking again. What is
compared and why: docs/quality.md.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.quality_arms import ARMS, Answered, Bench, kept
from benchmarks.quality_engine import engine
from benchmarks.quality_forms import extraction
from benchmarks.quality_sql import text_to_sql
from benchmarks.quality_task import Task
from benchmarks.quality_words import claims, portuguese, voice

ROOT = Path(__file__).parent.parent
MODEL = ROOT / ".afina" / "models" / "smollm2-135m-instruct"
TASKS = {
    "voice": voice, "portuguese": portuguese, "extraction": extraction, "claims": claims,
    "sql": text_to_sql,
}  # fmt: skip


def spread(values: Sequence[float]) -> str:
    """The mean, and how far from it the lowest and the highest lie."""
    if any(map(math.isnan, values)):
        return "–"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({min(values):.2f}–{max(values):.2f})"


def line_of(task: Task, arm: str, found: Sequence[Answered]) -> tuple[list[str], float]:
    """A line of the table, and the mean of the measure that decides."""
    judged = [task.judge(task.held_out, one.answers) for one in found]
    names = list(judged[0])
    cells = [spread([one[name] for one in judged]) for name in names]
    likely = spread([one.likelihood for one in found])
    facts = found[0].facts
    how = ""
    if facts:
        how = f"{facts['epochs']} epochs, batch {facts['batch']}, rate {facts['rate']:.2g}"
    cells += [likely, how]
    return [arm, str(len(found)), *cells], statistics.fmean(one[names[0]] for one in judged)


def print_table(task: Task, found: dict[str, list[Answered]]) -> None:
    """A task's table, and whether `auto` is at or above the best of the others."""
    names = list(task.judge(task.held_out, [row.answer for row in task.held_out]))
    sizes = f"{len(task.rows)} rows, {len(task.held_out)} held out"
    print(f"\n### {task.name}: {sizes}\n")
    head = ["arm", "seeds", *names, "nats a token", "how"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    scores = {}
    for arm, answered in found.items():
        cells, scores[arm] = line_of(task, arm, answered)
        print("| " + " | ".join(cells) + " |")
    others = {arm: score for arm, score in scores.items() if not arm.startswith("auto")}
    if "auto" in scores and others:
        best = max(others, key=lambda arm: others[arm])
        word = "at or above" if scores["auto"] >= others[best] - 1e-9 else "BELOW"
        print(f"\n`auto` is {word} the best of the others ({best}).")


def show(task: Task, found: dict[str, list[Answered]], count: int) -> None:
    """Answers side by side, to be read."""
    for place, row in enumerate(task.held_out[:count]):
        print(f"\n? {row.question}\n= {row.answer}")
        for arm, answered in found.items():
            print(f"  {arm}: {answered[0].answers[place]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--arms", default=" ".join(ARMS), help="separated by spaces or commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "quality")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="1 where others use the machine too")  # fmt: skip
    parser.add_argument("--show", type=int, default=0, help="print so many questions with answers")
    parser.add_argument("--kept", action="store_true", help="the tables of what is in --cache")
    given = parser.parse_args()
    # an engine and a trainer of ours end with us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arms = given.arms.split() if " " in given.arms or ":" in given.arms else given.arms.split(",")
    tasks = [TASKS[name]() for name in given.tasks.split(",")]
    given.cache.mkdir(parents=True, exist_ok=True)
    if not given.kept:
        run(given, tasks, arms)
    for task in tasks:
        found = kept(given.cache, task)
        if not given.kept:
            found = {arm: found[arm][: given.seeds] for arm in arms}
        print_table(task, found)
        if given.show:
            show(task, found, given.show)


def run(given: argparse.Namespace, tasks: Sequence[Task], arms: Sequence[str]) -> None:
    """Asks everything that is not in the cache yet."""
    with engine(given.model, given.cache / "engine", given.threads) as served:
        bench = Bench(served, given.cache, given.threads)
        for task, arm, seed in cells(tasks, arms, given.seeds):
            one = bench.answered(task, arm, seed)
            first, value = next(iter(task.judge(task.held_out, one.answers).items()))
            print(f"{task.name} {arm} seed {seed}: {first} {value:.3f}, "
                  f"{one.likelihood:.3f} nats {dict(one.facts)}", flush=True)  # fmt: skip


def cells(
    tasks: Sequence[Task], arms: Sequence[str], seeds: int
) -> Iterator[tuple[Task, str, int]]:
    """What is asked, one cell behind the other: an arm over all tasks before the next arm, one seed
    before the next, so that a run that is cut off leaves whole columns."""
    for seed in range(seeds):
        for arm in arms:
            if arm == "plain" and seed:
                continue  # nothing of it is drawn
            for task in tasks:
                yield task, arm, seed


if __name__ == "__main__":
    main()
