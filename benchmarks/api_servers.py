"""The processes of benchmarks/api.py: the API, an engine that answers from a script, one that
writes large files beside them; and where the API stands when it lets somebody wait.

    python -m benchmarks.api_servers DATA     the engine, until SIGTERM
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from afina.settings import Settings

PORT = 18_383
"""Where the API listens, and where it is asked for its stacks (benchmarks/api_stacks.py)."""


@contextlib.contextmanager
def process(*command: str, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child of this one, stopped at the end."""
    child = subprocess.Popen(command, **given)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


@contextlib.contextmanager
def api(data: Path) -> Iterator[psutil.Process]:
    """`afina api` on that data directory."""
    module = (sys.executable, "-m", "benchmarks.api_stacks", str(PORT))
    command = (*module, "api", "--data", str(data), "--port", str(PORT))
    with (data / "api.txt").open("wb") as log, process(*command, stdout=log, stderr=log) as child:
        deadline = time.monotonic() + 60
        while b"listens" not in (data / "api.txt").read_bytes():
            assert time.monotonic() < deadline, "the api did not start"
            time.sleep(0.1)
        time.sleep(1)
        yield psutil.Process(child.pid)


@contextlib.contextmanager
def disturbed(folder: Path) -> Iterator[None]:
    """Another process writes 256 MB after 256 MB on this disk, and syncs each."""
    write = (
        "import os, sys\n"
        "piece = os.urandom(1 << 20)\n"
        "while True:\n"
        "    with open(sys.argv[1], 'wb') as file:\n"
        "        for _ in range(256): file.write(piece)\n"
        "        file.flush(); os.fsync(file.fileno())\n"
    )
    with process(sys.executable, "-c", write, str(folder / "disturbance")):
        yield
    (folder / "disturbance").unlink(missing_ok=True)


@contextlib.contextmanager
def engine(data: Path) -> Iterator[None]:
    """An engine that answers from a script, and holds answers to `user: held` after a word."""
    settings = Settings(data=data)
    with process(sys.executable, "-m", "benchmarks.api_servers", str(data)):
        deadline = time.monotonic() + 60
        while not settings.engine_socket.exists():
            assert time.monotonic() < deadline, "the engine did not start"
            time.sleep(0.1)
        yield


def be_the_engine(data: Path) -> None:
    """Runs until SIGTERM."""
    from afina.serving.testing import Script, ScriptedEngine

    settings = Settings(data=data)
    settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    never, stop = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ScriptedEngine(settings.engine_socket, settings.journal) as scripted:
        scripted.script = lambda asked: Script(hold=never if asked.max_tokens == 64 else None)
        stop.wait()
        os._exit(0)


class Stalls:
    """Asks the server where its threads stand, when a request waits for too long."""

    def __init__(self, log: Path, beyond_ms: float) -> None:
        self._log, self._beyond_s = log, beyond_ms / 1000
        self._door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.waiting: dict[int, tuple[str, float]] = {}
        self.seen: list[str] = []

    async def watch(self, begun: float) -> None:
        """Until it is cancelled; once a second at most."""
        while True:
            await asyncio.sleep(0.02)
            now = time.perf_counter() - begun
            late = [(now - due, name) for name, due in self.waiting.values()]
            late = [one for one in late if one[0] > self._beyond_s]
            if late:
                self._door.sendto(b"?", ("127.0.0.1", PORT))
                names = ", ".join(sorted({name for _, name in late}))
                self.seen.append(
                    f"{now:6.2f} s: {len(late)} wait, {1000 * max(late)[0]:.0f} ms: {names}"
                )
                await asyncio.sleep(1)

    def show(self) -> None:
        """What was seen, and the stacks of the first of it."""
        print(f"\nrequests that waited for more than {1000 * self._beyond_s:.0f} ms")
        print("\n".join(self.seen) or "none")
        stacks = self._log.read_text(errors="replace").split("Thread ")[1:]
        places = Counter(_frames(stack) for stack in stacks)
        for stack, count in places.most_common(12):
            print(f"\n{count} times\n{stack}")


def _frames(stack: str) -> str:
    """The frames alone: lines of the log may stand between them."""
    return "\n".join(line for line in stack.splitlines()[1:] if line.startswith("  "))


if __name__ == "__main__":
    be_the_engine(Path(sys.argv[1]))
