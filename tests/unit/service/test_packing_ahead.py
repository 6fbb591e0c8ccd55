"""How steps will be packed is known before a run, and is what the trainer then does."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.check import CheckLimits, check_file
from afina.data.kinds import RowKind
from afina.data.shards import ShardOptions, Shards, build_shards
from afina.domain.bins import bin_capacities
from afina.domain.foresight import Packed
from afina.domain.ways import PLAIN, Way
from afina.service import packing_ahead
from afina.service.packing_ahead import packed_file
from afina.text.renderer import Renderer
from afina.training.packing import epoch_order, rows_of_step
from afina.training.planning import plan_bins

TEXT = "the claim was late and covers damage by water but not by wear so ask for a photo"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def some(source: random.Random, count: int) -> str:
    return " ".join(source.choices(WORDS, k=count))


def chats(path: Path, rows: int, system: str | None) -> Path:
    source = random.Random(7)
    lines = []
    for _ in range(rows):
        messages = [{"role": "system", "content": system or some(source, 60)}]
        messages.append({"role": "user", "content": some(source, 8)})
        messages.append({"role": "assistant", "content": some(source, source.randint(2, 20))})
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))
    return path


def packed(path: Path, renderer: Renderer, way: Way, batch: int) -> Packed:
    found = packed_file(path, renderer, check_file(path, CheckLimits(), renderer), way, batch)
    assert found is not None
    return found


def test_what_is_planned_of_a_small_file_is_what_an_epoch_computes(
    renderer: Renderer, tmp_path: Path
) -> None:
    path = chats(tmp_path / "f", 24, some(random.Random(1), 60))
    found = packed(path, renderer, PLAIN, 8)
    spec = build_shards(path, renderer, tmp_path / "s")
    rows = Shards.open(Path(spec.path))
    computed, largest = 0, 0
    order = epoch_order(24, 0, 1)
    for step in range(3):
        chosen = rows_of_step(order, 8, step)
        for one in plan_bins(rows, chosen, bin_capacities(spec.longest_row)):
            saved = sum((len(f.rows) - 1) * f.shared for f in one.families)
            size = int(sum(rows.lengths[row] for row in one.rows)) - saved
            computed, largest = computed + size, max(largest, size)
    assert found.share == pytest.approx(computed / spec.tokens)
    assert found.largest == largest
    assert found.share < 0.5


def test_rows_share_nothing_with_dropout_or_where_each_begins_otherwise(
    renderer: Renderer, tmp_path: Path
) -> None:
    alike = chats(tmp_path / "alike", 16, some(random.Random(1), 60))
    apart = chats(tmp_path / "apart", 16, None)
    assert packed(alike, renderer, Way(dropout=0.1), 8).share == 1
    assert packed(apart, renderer, PLAIN, 8).share > 0.98
    assert packed(alike, renderer, PLAIN, 1).share == 1, "a row a step meets no other"


def test_a_large_file_is_judged_by_rows_from_all_over_it(
    renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = chats(tmp_path / "f", 2000, some(random.Random(1), 60))
    whole = packed(path, renderer, PLAIN, 8)
    monkeypatch.setattr(packing_ahead, "_WHOLE_BYTES", path.stat().st_size // 10)
    assert packed(path, renderer, PLAIN, 8).share == pytest.approx(whole.share, rel=0.05)


def test_a_pair_computes_its_question_once(renderer: Renderer, tmp_path: Path) -> None:
    source = random.Random(3)
    path = tmp_path / "pairs"
    row = [
        {
            "input": {"messages": [{"role": "user", "content": some(source, 80)}]},
            "preferred_output": [{"role": "assistant", "content": some(source, 4)}],
            "non_preferred_output": [{"role": "assistant", "content": some(source, 4)}],
        }
        for _ in range(12)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in row))
    assert packed(path, renderer, Way(pairs=True), 1).share < 0.65
    shards = build_shards(path, renderer, tmp_path / "s", ShardOptions(kind=RowKind.PREFERENCE))
    assert shards.rows == 24
