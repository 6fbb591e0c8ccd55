"""Starts a trainer as a child process and ends it; knows nothing of jobs and the store.

A lock on the run directory is handed to the child and lives exactly as long as it does, so two
trainers can never write into one run. Start trainers from the main thread (afina.domain.orphans).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from afina.domain.runs import RunPaths
from afina.pipeline.identity import ProcessMark
from afina.settings import OFFLINE, child_environment

LOCK = "trainer.lock"
NICE = 19
_SPINS = "10000"
"""How long a thread waits for the others before it sleeps: some ten microseconds. Not at all, and
small steps take twice as long; much longer, and two busy processes starve each other."""
_MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"
"""Huge pages, and what a step frees stays for the next one: without this a tenth to a third of a
step goes into the kernel's handing out of pages (docs/diary.md). Other C libraries ignore it."""


class RunBusy(Exception):
    """Another trainer lives in the run directory."""


@dataclass(frozen=True)
class Command:
    """What is started for a run: the program's arguments before the run directory's path."""

    arguments: tuple[str, ...] = (sys.executable, "-m", "afina.training")
    nice: int = NICE


@dataclass(frozen=True)
class Waiting:
    """What a trainer loads before it is told to go."""

    base: Path
    precision: str


@dataclass
class Trainer:
    """A living or ended trainer. Closing the pipe, or our death, ends it."""

    process: subprocess.Popen[bytes]
    attempt: int
    _pipe: int
    _gate: int = -1
    """The writing end of the pipe that a waiting trainer reads."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code once it has ended (negative: the signal that killed it)."""
        code = self.process.poll()
        if code is not None:
            self._close()
        return code

    def go(self) -> None:
        """Let a waiting trainer look at its run; one that has ended meanwhile is seen by `poll`."""
        if self._gate >= 0:
            with contextlib.suppress(OSError):
                os.write(self._gate, b"g")
        self._close_gate()

    def ask_to_leave(self) -> None:
        """Ask for a checkpoint and an exit with code 75."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now and wait for its end; the last checkpoint stands."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self._close_gate()

    def _close_gate(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1


def start_trainer(
    paths: RunPaths,
    attempt: int,
    threads: int,
    command: Command | None = None,
    waiting: Waiting | None = None,
) -> Trainer:
    """Start a trainer in `paths.root`, with `waiting` one that loads and waits for `go`. Raises
    RunBusy while another one lives there."""
    command = command or Command()
    folder = paths.attempt(attempt)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(paths.root / LOCK)
    reading, writing = os.pipe()
    ours, theirs = [writing], [reading, lock]
    arguments = [*command.arguments, str(paths.root), "--parent-fd", str(reading)]
    if waiting is not None:
        gate, gate_end = os.pipe()
        theirs.append(gate)
        ours.append(gate_end)
        arguments += ["--wait-fd", str(gate), "--base", str(waiting.base)]
        arguments += ["--precision", waiting.precision]
    try:
        with (folder / "log.txt").open("ab") as log:
            process = _spawn(arguments, command.nice, threads, theirs, log)
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    _write_mark(paths.root / LOCK, process.pid)
    return Trainer(process, attempt, *ours)


def end_other_trainer(paths: RunPaths) -> None:
    """Kill the trainer of an earlier owner of this run, if it is still alive on this host."""
    try:
        marked = json.loads((paths.root / LOCK).read_text())
        mark = ProcessMark(int(marked["pid"]), str(marked["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    if mark.is_alive:
        os.kill(mark.pid, signal.SIGKILL)


def trainer_environment(threads: int) -> dict[str, str]:
    """The environment that a trainer is started in."""
    return child_environment(
        OMP_NUM_THREADS=str(threads),
        OMP_WAIT_POLICY="PASSIVE",
        GOMP_SPINCOUNT=_SPINS,
        PYTHONUNBUFFERED="1",
        GLIBC_TUNABLES=_MEMORY,
        **OFFLINE,
    )


def _spawn(
    arguments: Sequence[str], nice: int, threads: int, fds: Sequence[int], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=fds,
        start_new_session=True,
        env=trainer_environment(threads),
    )
    with contextlib.suppress(OSError):  # it may have ended: slower neighbours, same result
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RunBusy(str(path)) from None
    return fd


def _write_mark(path: Path, pid: int) -> None:
    mark = ProcessMark.of(pid)
    text = json.dumps({"pid": pid, "start": mark.start if mark else ""})
    path.write_text(text)
