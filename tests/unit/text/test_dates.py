"""Templates that write the date: one day for a tune's training and serving."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_chat import CHATML, FAMILIES, Family, make_folder

from afina.domain.clock import day_of
from afina.text.renderer import Renderer

DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '. ' }}" + CHATML
PAST = day_of(1_700_000_000)
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


def test_a_pinned_day_is_written_in_training_and_serving(tmp_path: Path) -> None:
    plain = FAMILIES["chatml"]
    folder = make_folder(tmp_path, Family(DATED, plain.special, plain.build, plain.bos, plain.eos))
    pinned, other, today = (Renderer.load(folder, day) for day in (PAST, PAST + 86_400, None))
    assert pinned.moment == PAST
    row = pinned.training_row(CHAT)
    prompt = pinned.prompt(CHAT[:1])
    assert row.ids[: len(prompt)] == prompt
    assert "14 Nov 2023" in pinned.tokenizer.decode(prompt)
    assert len({r.template_sha256 for r in (pinned, other, today)}) == 3
    assert today.moment is None
    assert today.prompt(CHAT[:1]) != prompt


def test_a_template_that_never_asks_knows_no_day(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, FAMILIES["chatml"])
    pinned, today = Renderer.load(folder, PAST), Renderer.load(folder)
    assert pinned.moment is None
    assert pinned.fingerprint == today.fingerprint
