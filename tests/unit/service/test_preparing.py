"""How far a preparation is: told now and then, read without trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from afina.domain.clock import ManualClock
from afina.service.preparing import EVERY_S, NAME, PreparingNote, prepared_share


def test_a_stage_s_share_is_noted_now_and_then_and_forgotten_at_its_end(tmp_path: Path) -> None:
    clock, run = ManualClock(), tmp_path / "run"
    note = PreparingNote(run, clock)
    note.note("moderating", 10, 100)
    note.note("moderating", 20, 100)
    assert prepared_share(run, "moderating") == 0.1, "too soon to say it again"
    clock.advance(EVERY_S)
    note.note("moderating", 150, 100)
    assert prepared_share(run, "moderating") == 1.0
    assert prepared_share(run, "tokenising") is None, "that is another stage's share"
    note.forget()
    assert prepared_share(run, "moderating") is None


def test_a_note_of_nothing_writes_nothing(tmp_path: Path) -> None:
    PreparingNote(tmp_path, ManualClock()).note("validating", 0, 0)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"stage": "moderating"}', '{"share": 1}'])
def test_a_torn_or_foreign_note_is_no_news(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert prepared_share(tmp_path, "moderating") is None
