"""Silence: counted while nothing changes, and never blamed on others by one who slept himself."""

from __future__ import annotations

from afina.domain.silence import Silence


def test_silence_grows_while_the_signs_stay_and_ends_with_a_change() -> None:
    silence = Silence(2.0)
    assert [silence.look(float(second), "a") for second in range(1, 5)] == [0.0, 1.0, 2.0, 3.0]
    assert silence.look(5.0, "b") == 0.0
    assert silence.look(6.0, "b") == 1.0


def test_who_slept_himself_has_seen_little() -> None:
    silence = Silence(2.0)
    silence.look(1.0, "a")
    assert silence.look(3600.0, "a") == 2.0
