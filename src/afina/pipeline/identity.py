"""Who a worker is: host, process, start of the process, and something random.

A lease is taken over at once when its owner's process is known to be dead: same host, same boot,
same room of process ids, and no living process with that id and start. Of any other owner nothing
is known, and its lease has to run out.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from afina.domain.ids import Ids

_DEAD_STATES = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


@dataclass(frozen=True)
class ProcessMark:
    """A process that can be told from a later one with the same id."""

    pid: int
    start: str

    @staticmethod
    def of(pid: int) -> ProcessMark | None:
        """The mark of a living process; None if there is none or it is a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() in _DEAD_STATES:
                return None
            return ProcessMark(pid, _start_of(process))
        except psutil.NoSuchProcess:
            return None

    @property
    def is_alive(self) -> bool:
        return ProcessMark.of(self.pid) == self


@dataclass(frozen=True)
class WorkerIdentity:
    """One life of a worker. Its text is the owner that leases name."""

    host: str
    process: ProcessMark
    nonce: str

    @staticmethod
    def of_this_process(ids: Ids, pid: int) -> WorkerIdentity:
        """The identity of the calling process, new at each call."""
        mark = ProcessMark.of(pid)
        assert mark is not None
        return WorkerIdentity(this_host(), mark, ids.new("", 8))

    def __str__(self) -> str:
        return f"{self.host}|{self.process.pid}|{self.process.start}|{self.nonce}"

    @staticmethod
    def parse(owner: str) -> WorkerIdentity | None:
        """The identity that a lease names; None if it is in no form we know."""
        parts = owner.split("|")
        if len(parts) != 4 or not parts[1].isdecimal():
            return None
        return WorkerIdentity(parts[0], ProcessMark(int(parts[1]), parts[2]), parts[3])


def is_known_dead(owner: str) -> bool:
    """Whether the worker that a lease names ran on this host and has ended."""
    identity = WorkerIdentity.parse(owner)
    return identity is not None and identity.host == this_host() and not identity.process.is_alive


def this_host() -> str:
    """The host's name with its boot and its room of process ids, where the system tells them."""
    boot = _line_of(Path("/proc/sys/kernel/random/boot_id"))[:8]
    try:
        room = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        room = ""
    return f"{socket.gethostname()}/{boot}/{room}".replace("|", "-")


def _line_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _start_of(process: psutil.Process) -> str:
    """Ticks since boot where Linux tells them: the wall clock may be set while a process lives."""
    try:
        text = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return f"{process.create_time():.2f}"
    return text.rpartition(")")[2].split()[19]
