"""What the tour is told with: chapters with their wall time, and commands that are really run.

Every command is shown as a user would type it and run as the same program with the same arguments.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class TourFailed(Exception):
    """A chapter did not end as it should; the message says which command, and how."""


class Stage:
    """Tells chapters, runs commands in one data directory, and keeps the times."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root = root
        self.data = data
        self.times: list[tuple[str, float]] = []
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("AFINA_")
        } | {"AFINA_DATA": str(data), "PYTHONUNBUFFERED": "1"}
        self._platform: subprocess.Popen[bytes] | None = None

    @contextmanager
    def chapter(self, title: str, why: str) -> Iterator[None]:
        """A heading, what happens, and how long it took."""
        print(f"\n{BOLD}{len(self.times) + 1}. {title}{PLAIN}\n{why}\n", flush=True)
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        self.times.append((title, took))
        print(f"{DIM}({took:.1f} s){PLAIN}", flush=True)

    def run(self, *arguments: str) -> None:
        """Run `afina …` with its output on this terminal."""
        self._show(arguments)
        done = subprocess.run(
            self._command(arguments), cwd=self.root, env=self._environment, check=False
        )
        self._judge(arguments, done.returncode)

    def ask(self, *arguments: str) -> str:
        """Run `afina …`, show what it printed, and return that."""
        self._show(arguments)
        done = subprocess.run(
            self._command(arguments),
            cwd=self.root,
            env=self._environment,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        print(done.stdout, end="", flush=True)
        self._judge(arguments, done.returncode)
        return done.stdout.strip()

    def start_platform(self, port: int) -> str:
        """`afina up` in the background; returns its address once it answers."""
        arguments = ("up", "--port", str(port))
        self._show((*arguments, "&"))
        self._platform = subprocess.Popen(
            self._command(arguments),
            cwd=self.root,
            env=self._environment,
            # Ctrl-C must reach the tour alone, which then stops the platform in order.
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        greeted = threading.Event()
        threading.Thread(target=_tell, args=(self._platform.stdout, greeted), daemon=True).start()
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not (greeted.wait(0.1) and _answers(f"{url}/health")):
            if self._platform.poll() is not None:
                raise TourFailed(f"`afina up` ended with {self._platform.returncode}.")
            if time.monotonic() > deadline:
                raise TourFailed("`afina up` was not ready within a minute.")
        return url

    def stop_platform(self) -> None:
        """Ctrl-C to `afina up`: it drains and stops all its children."""
        if self._platform is None or self._platform.poll() is not None:
            return
        self._platform.send_signal(signal.SIGINT)
        try:
            self._platform.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._platform.kill()
            raise TourFailed("The platform did not stop within a minute.") from None

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "afina.cli", *arguments]

    def _show(self, arguments: tuple[str, ...]) -> None:
        words = " ".join(a if a == "&" else shlex.quote(a) for a in arguments)
        print(f"{BOLD}$ afina {words}{PLAIN}", flush=True)

    def _judge(self, arguments: tuple[str, ...], code: int) -> None:
        if code != 0:
            raise TourFailed(f"`afina {shlex.join(arguments)}` ended with {code}.")


def _tell(lines: IO[bytes] | None, greeted: threading.Event) -> None:
    """Print what `afina up` says; its last line of greeting names the key."""
    for line in lines or ():
        print(line.decode(), end="", flush=True)
        if b"API key" in line:
            greeted.set()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
