"""Does a job's list of suspect rows show the rows that spoil it?

    python -m benchmarks.suspects [--sets sql,mixed] [--threads 1]

Three rows of 300 are spoilt on purpose: a wrong answer that looks right, an answer in another
language, and garbage. A job trains on them with everything at `auto`; then the rows are ranked as
`row_losses.csv` ranks them. `sql` is one kind of row, `mixed` are five kinds, whose losses lie far
apart. What was seen: docs/methods.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.quality import MODEL, ROOT, TASKS
from benchmarks.quality_arms import Bench, afina_spec
from benchmarks.quality_engine import Served
from benchmarks.quality_sql import TRAINED, rows_about
from benchmarks.quality_task import Row, Task

from afina.domain.runs import RunPaths
from afina.model.folder import read_record
from afina.pipeline.launcher import trainer_environment
from afina.pipeline.run_files import write_spec
from afina.text.renderer import Renderer

ROWS = 300
GERMAN = "Das weiß ich leider nicht, bitte fragen Sie morgen noch einmal nach."
GARBAGE = "xq;; 7f0a \\u00 ]]}} lorem zzkq %%d NULL NULL 00 ~~ qwpe asd"


def sql(source: random.Random) -> list[Row]:
    """Rows of one kind."""
    return rows_about(TRAINED, source, 8)[:100] + rows_about(TRAINED, source, 8)[:100] + (
        rows_about(TRAINED, source, 8)[:100]
    )  # fmt: skip


def mixed(source: random.Random) -> list[Row]:
    """Rows of all five tasks."""
    rows = [row for make in TASKS.values() for row in make().rows]
    source.shuffle(rows)
    return rows[:ROWS]


SETS: dict[str, Callable[[random.Random], list[Row]]] = {"sql": sql, "mixed": mixed}


def spoil(rows: Sequence[Row], source: random.Random) -> tuple[list[Row], dict[int, str]]:
    """The rows with three of them spoilt, and how each of those (by line) is spoilt."""
    spoilt = list(rows)
    wrong, foreign, garbage = source.sample(range(len(rows)), 3)
    other = next(row for row in source.sample(rows, len(rows))
                 if row.answer != rows[wrong].answer
                 and row.answer[:6] == rows[wrong].answer[:6])  # fmt: skip
    spoilt[wrong] = replace(rows[wrong], answer=other.answer)
    spoilt[foreign] = replace(rows[foreign], answer=GERMAN)
    spoilt[garbage] = replace(rows[garbage], answer=GARBAGE)
    return spoilt, {
        wrong + 1: "wrong answer",
        foreign + 1: "other language",
        garbage + 1: "garbage",
    }


def trained(name: str, seed: int, cache: Path, threads: int) -> tuple[bytes, dict[int, str]]:
    """row_losses.csv of a job on that set, and the lines that are spoilt."""
    source = random.Random(f"{name}{seed}")
    rows, spoilt = spoil(SETS[name](source), source)
    record = read_record(MODEL)
    if record is None:
        raise SystemExit(f"{MODEL} has no record: afina models pull {MODEL.name} --data .afina")
    data = cache / "engine"
    (data / "models").mkdir(parents=True, exist_ok=True)
    if not (data / "models" / record.id).exists():
        (data / "models" / record.id).symlink_to(MODEL.resolve())
    bench = Bench(Served(data, record, Renderer.load(MODEL), data / "none"), cache, threads)
    task = Task(f"suspects-{name}", tuple(rows), (), lambda _rows, _answers: {}, "")
    (cache / f"{task.name}-{task.sha256[:8]}").mkdir(exist_ok=True)
    room = cache / f"{task.name}-{task.sha256[:8]}" / f"run-{seed}"
    paths = RunPaths(room)
    if not paths.row_losses.exists():
        write_spec(paths, afina_spec(bench, task, "auto", seed))
        command = [sys.executable, "-m", "afina.training", str(room)]
        subprocess.run(command, check=True, env=trainer_environment(threads))
    return paths.row_losses.read_bytes(), spoilt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="1 where others use the machine too")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "suspects")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    for name in given.sets.split(","):
        for seed in range(given.seeds):
            raw, spoilt = trained(name, seed, given.cache, given.threads)
            table = list(csv.DictReader(io.StringIO(raw.decode())))
            print(name, seed, len(table), spoilt)
            for row in table:
                if int(row["line"]) in spoilt or row["suspect"] == "1":
                    print(row, spoilt.get(int(row["line"]), ""))


if __name__ == "__main__":
    main()
