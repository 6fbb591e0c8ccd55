"""A flag for signal handlers."""

from __future__ import annotations

import os
import signal
import time

from afina.domain.flag import SignalFlag


def test_it_is_up_from_the_first_time_and_counts() -> None:
    flag = SignalFlag()
    assert not flag.is_up()
    assert not flag.wait(0)
    flag.lift()
    flag.lift()
    assert flag.is_up()
    assert flag.count == 2
    assert flag.wait(3600)


def test_after_clear_it_waits_for_the_next_time() -> None:
    flag = SignalFlag()
    flag.lift()
    flag.clear()
    flag.clear()
    begun = time.monotonic()
    assert flag.wait(0.02)
    assert time.monotonic() - begun >= 0.015


def test_however_often_it_is_raised_it_never_blocks() -> None:
    flag = SignalFlag()
    for _ in range(100_000):
        flag.lift()
    assert flag.count == 100_000


def test_signals_within_its_own_handler_end_the_wait() -> None:
    flag = SignalFlag()
    sent = iter(range(20))

    def handle(number: int, frame: object) -> None:
        if next(sent, None) is not None:
            os.kill(os.getpid(), number)  # comes before the one before has been dealt with
        flag.lift()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert flag.wait(3600)
        assert flag.count == 21
    finally:
        signal.signal(signal.SIGUSR1, before)
