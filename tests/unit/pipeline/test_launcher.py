"""A trainer lives alone in its run, and not longer than the one who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from afina.domain.orphans import ORPHANED
from afina.domain.runs import RunPaths
from afina.pipeline.identity import ProcessMark
from afina.pipeline.launcher import Command, RunBusy, end_other_trainer, start_trainer

SLEEPER = Command((sys.executable, "-c", "import time; time.sleep(60)"))
SPEAKER = Command(
    (sys.executable, "-c", "import os, sys; print(sys.argv[1:2], *map(os.environ.get, "
     "('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')), os.nice(0))")
)  # fmt: skip
WATCHER = Command(
    (sys.executable, "-c", "import sys, time; from afina.domain.orphans import die_with_parent; "
     "die_with_parent(int(sys.argv[-1])); time.sleep(60)")
)  # fmt: skip


def test_a_trainer_gets_its_run_its_threads_and_a_low_priority(tmp_path: Path) -> None:
    trainer = start_trainer(RunPaths(tmp_path), 1, 3, SPEAKER)
    trainer.process.wait()
    assert trainer.poll() == 0
    text = (tmp_path / "attempt-1" / "log.txt").read_text()
    assert text == f"['{tmp_path}'] 3 PASSIVE 10000 19\n"


def test_no_second_trainer_in_a_run_while_one_lives(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    first = start_trainer(paths, 1, 1, SLEEPER)
    with pytest.raises(RunBusy):
        start_trainer(paths, 2, 1, SLEEPER)
    first.kill()
    start_trainer(paths, 2, 1, SLEEPER).kill()
    assert first.poll() == -signal.SIGKILL


def test_the_trainer_of_another_owner_can_be_ended(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    end_other_trainer(paths)
    other = start_trainer(paths, 1, 1, SLEEPER)
    end_other_trainer(paths)
    assert other.process.wait(10) == -signal.SIGKILL
    end_other_trainer(paths)
    start_trainer(paths, 2, 1, SLEEPER).kill()


def test_a_child_ends_with_the_pipe_of_its_parent(tmp_path: Path) -> None:
    trainer = start_trainer(RunPaths(tmp_path), 1, 1, WATCHER)
    os.close(trainer._pipe)
    trainer._pipe = -1
    assert trainer.process.wait(20) == ORPHANED


def test_a_trainer_dies_with_a_killed_parent_that_could_say_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from afina.domain.runs import RunPaths\n"
        "from afina.pipeline.launcher import Command, start_trainer\n"
        f"t = start_trainer(RunPaths(Path({str(tmp_path)!r})), 1, 1, "
        f"Command({WATCHER.arguments!r}))\n"
        "print(t.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = ProcessMark.of(int(parent.stdout.readline()))
    assert child is not None
    parent.kill()
    parent.communicate()
    while child.is_alive:
        pass
