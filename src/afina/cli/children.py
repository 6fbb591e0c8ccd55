"""The supervisor's children: how one is started, watched, started again and ended.

Each runs in a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone, and
writes to DATA/logs/<name>.log. A child that ends comes back after a pause that doubles each time;
one that has lived for half a minute is forgiven.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from afina.domain.clock import Clock
from afina.settings import child_environment

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
FORGIVEN_AFTER_S = 30.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ChildSpec:
    """What is started: a program with its arguments and the descriptors that it inherits."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    fds: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    exits: Mapping[int, str] = field(default_factory=dict)
    """What its exit codes mean, where they mean something."""


class Child:
    """One of the platform's processes, over all its lives."""

    def __init__(self, spec: ChildSpec, clock: Clock) -> None:
        self.spec = spec
        self.deaths = 0
        """Deaths since it last lived for long."""
        self._clock = clock
        self.was_hung = False
        """Whether its last life was ended as hung."""
        self._hung = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due: float | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it; the calling thread must be the main one."""
        _turn_over(self.spec.log)
        with self.spec.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.spec.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.spec.fds,
                start_new_session=True,
                env=child_environment(**self.spec.environment),
            )
        self._started = self._clock.monotonic()
        self._due = None
        self.was_hung = False

    def tend(self) -> str | None:
        """Start it again when its time has come; a line to say when it has just ended."""
        now = self._clock.monotonic()
        if self._due is not None:
            if now >= self._due:
                self.start()
            return None
        if self._process is None or self._process.poll() is None:
            return None
        if now - self._started > FORGIVEN_AFTER_S:
            self.deaths = 0
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self.deaths)
        self.deaths += 1
        self._due = now + pause
        code = self._process.returncode
        how = f"ended ({self.spec.exits.get(code) or _how(code)})"
        if self.was_hung:
            how = f"was hung and has been ended ({self._hung})"
        return (
            f"The {self.spec.name} {how}; it starts again in {pause:g} s. Its log: {self.spec.log}"
        )

    def end_as_hung(self, reason: str) -> None:
        """SIGKILL for what will not end otherwise; `tend` says why and starts it again."""
        if self.is_alive and self._process is not None:
            self.was_hung, self._hung = True, reason
            self._process.kill()

    @property
    def exit_code(self) -> int | None:
        """How its last life ended; None while it lives."""
        return self._process.poll() if self._process is not None else None

    def ask_to_leave(self) -> None:
        """SIGTERM: finish what can be finished, then end."""
        self._due = None
        if self.is_alive and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._due = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The last line of its log that says anything."""
        try:
            with self.spec.log.open("rb") as file:
                file.seek(max(0, self.spec.log.stat().st_size - 4096))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _turn_over(log: Path) -> None:
    """Keep one older log, and neither larger than the limit at a start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".1.log"))
