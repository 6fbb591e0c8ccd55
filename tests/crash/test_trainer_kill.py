"""A trainer that is really killed, by SIGKILL, at named points, ends with the unharmed bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny_run import adapter_bytes_of, make_run, read_events, write_spec

from afina.domain.orphans import ORPHANED
from afina.domain.runs import RunPaths
from afina.settings import child_environment
from afina.training.given import read_spec

ROOT = Path(__file__).parent.parent.parent
POINTS = (
    ("step", 2),
    ("saving", 3),
    ("saved", 3),
    ("step", 4),
    ("saving", 5),
    ("saved", 6),
    ("finishing", 6),
    ("result", 6),
)
# One process loads torch once and forks a life of the trainer for each attempt.
DRIVER = """
import os, signal, sys, json
from pathlib import Path
from afina.training.run import Hooks, run_directory

def life(root, point):
    child = os.fork()
    if child == 0:
        def at(*passed):
            if list(passed) == point:
                os.kill(os.getpid(), signal.SIGKILL)
        try:
            run_directory(Path(root), hooks=Hooks(at))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for root, points in json.loads(sys.argv[1]):
    print(json.dumps([life(root, point) for point in [*points, None]]), flush=True)
"""


def environment() -> dict[str, str]:
    return child_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))


def drive(lives: list[tuple[Path, list[tuple[str, int]]]]) -> list[list[int]]:
    plan = json.dumps([[str(root), points] for root, points in lives])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, plan],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_adapter_has_the_same_bytes_whenever_the_trainer_is_killed(tmp_path: Path) -> None:
    unharmed = tmp_path / "unharmed"
    make_run(unharmed)
    spec = replace(read_spec(RunPaths(unharmed)), resume_interval_s=1e-9)
    lives: list[tuple[Path, list[tuple[str, int]]]] = [(unharmed, [])]
    for point, step in POINTS:
        root = tmp_path / f"{point}-{step}"
        write_spec(root, spec)
        lives.append((root, [(point, step)]))
    root = tmp_path / "everywhere"
    write_spec(root, spec)
    lives.append((root, list(POINTS)))
    ends = drive(lives)
    for (_, points), codes in zip(lives, ends, strict=True):
        assert codes == [-signal.SIGKILL] * len(points) + [0]
    expected = adapter_bytes_of(unharmed, "checkpoints/step-6")
    told = [(e.sequence, e.kind, e.data) for e in read_events(unharmed)]
    for root, _ in lives:
        assert adapter_bytes_of(root, "checkpoints/step-6") == expected
        assert [(e.sequence, e.kind, e.data) for e in read_events(root)] == told


@pytest.mark.parametrize("end", ["parent", "sigterm"])
def test_the_trainer_leaves_when_told_and_can_go_on(tmp_path: Path, end: str) -> None:
    root = tmp_path / "run"
    make_run(root, epochs=400, validation=None, resume_interval_s=3600.0)
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "afina.training", str(root), "--parent-fd", str(reading)],
        env=environment(),
        pass_fds=(reading,),
        cwd=ROOT,
    )
    os.close(reading)
    deadline = time.monotonic() + 120
    while not (RunPaths(root).checkpoints / "step-3").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if end == "parent":
        os.close(writing)
        assert child.wait(10) == ORPHANED
    else:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 75
        os.close(writing)
    assert not RunPaths(root).result.exists()
    assert any(RunPaths(root).checkpoints.glob("step-*/record.json"))
