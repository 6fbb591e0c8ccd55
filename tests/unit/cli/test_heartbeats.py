"""The supervisor's ear: a process that is silent and asleep is hung, one that beats or computes is
not, and neither is one whose supervisor slept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from afina.cli import heartbeats
from afina.cli.heartbeats import PATIENCE, Heartbeats
from afina.domain.clock import ManualClock

LIMIT_S = 30.0


@pytest.fixture
def asleep() -> Iterator[int]:
    """A process that does nothing."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "print(flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


def look_for(
    seconds: int, beats: Heartbeats, clock: ManualClock, pid: int, *, beat_every: int = 0
) -> str | None:
    for second in range(seconds):
        clock.advance(1.0)
        if beat_every and second % beat_every == 0:
            os.write(beats.writing, b".")
        found = beats.look(pid)
        if found is not None:
            return found
    return None


def test_silent_and_asleep_is_hung_after_the_limit(asleep: int) -> None:
    clock = ManualClock()
    beats = Heartbeats(LIMIT_S, clock)
    assert look_for(30, beats, clock, asleep) is None
    assert "no processor time for 30 s" in (look_for(2, beats, clock, asleep) or "")


def test_who_beats_is_alive_however_little_it_computes(asleep: int) -> None:
    clock = ManualClock()
    beats = Heartbeats(LIMIT_S, clock)
    assert look_for(500, beats, clock, asleep, beat_every=20) is None


def test_silent_and_computing_is_given_ten_times_as_long(
    asleep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    beats = Heartbeats(LIMIT_S, clock)
    monkeypatch.setattr(heartbeats, "_processor_s", lambda _: clock.monotonic())
    assert look_for(PATIENCE * 30, beats, clock, asleep) is None
    assert look_for(2, beats, clock, asleep) == "no sign of life for 300 s"


def test_a_supervisor_that_slept_blames_nobody(asleep: int) -> None:
    clock = ManualClock()
    beats = Heartbeats(LIMIT_S, clock)
    assert look_for(5, beats, clock, asleep) is None
    clock.advance(3600)
    assert beats.look(asleep) is None


def test_a_new_life_begins_with_nothing_held_against_it(asleep: int) -> None:
    clock = ManualClock()
    beats = Heartbeats(LIMIT_S, clock)
    assert look_for(29, beats, clock, asleep) is None
    assert look_for(29, beats, clock, os.getpid()) is None


def test_no_limit_means_that_nothing_is_hung(asleep: int) -> None:
    clock = ManualClock()
    assert look_for(1000, Heartbeats(0.0, clock), clock, asleep) is None
