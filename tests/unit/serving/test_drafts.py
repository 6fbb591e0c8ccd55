"""Drafts follow what training answers agree on, and leave a tune alone where they do not stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afina.data.shard_files import ShardWriter
from afina.domain.manifests import SHARDS, Manifest
from afina.serving.blocks import BlockAllocator
from afina.serving.drafts import LONGEST, DraftIndex, read_index
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Plan, Prompt, Sequence, State
from afina.serving.speculation import Speculation


def row(prompt: list[int], answer: list[int]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array(prompt + answer, np.int32)
    return ids, np.arange(len(ids)) >= len(prompt)


def test_a_draft_is_what_followed_the_longest_like_context() -> None:
    index = DraftIndex([row([1, 2, 3], [10, 11, 12, 13]), row([9, 2, 3], [20, 21])])
    assert index.draft([1, 2, 3], LONGEST)[:2] in ([10, 11], [20, 21])  # two places, both of them
    assert index.draft([10, 11], LONGEST) == [12, 13]
    assert index.draft([7, 20], LONGEST) == []
    longer = DraftIndex([row([1, 2, 3, 4], [10, 11]), row([9, 9, 3, 4], [20, 21])] * 3)
    assert longer.draft([1, 2, 3, 4], LONGEST) == [10, 11]


def test_a_draft_ends_where_answers_part_or_end() -> None:
    rows = [row([1, 2], [5, 6, 7, 30 + i]) for i in range(4)]
    assert DraftIndex(rows).draft([1, 2], LONGEST) == [5, 6, 7]
    assert DraftIndex(rows).draft([1, 2], 2) == [5, 6]


def test_prompts_are_never_drafted() -> None:
    index = DraftIndex([row(list(range(100, 160)), [5, 6])])
    assert index.draft([100, 101], LONGEST) == []
    assert index.tokens < 60


def test_an_index_is_read_where_the_rows_were_prepared_and_is_gone_with_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("a" * 64) / "shards"
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, 1000)
    ids, learned = row([1, 2, 3], [10, 11, 12])
    lengths, lines = np.array([len(ids)]), np.array([1])
    writer.add_rows(ids, learned.astype(np.uint8), lengths, lines)
    writer.finish()

    def manifest(where: str) -> Manifest:
        return Manifest("lora", "tiny", "b" * 64, {}, "c" * 64, "d" * 64, settings={SHARDS: where})

    known = manifest(f"{'a' * 64}/shards")
    index = read_index(tmp_path, known)
    assert index is not None
    assert index.draft([10, 11], 3) == [12]
    assert read_index(tmp_path, manifest("../shards")) is None
    assert read_index(tmp_path, manifest(f"{'a' * 64}/../shards")) is None
    (folder / "shard-00000.safetensors").unlink()
    folder.rmdir()
    assert read_index(tmp_path, known) is None


class Rig:
    """One answer that decodes, drafted from `index`."""

    def __init__(self, index: DraftIndex, blocks: int = 8) -> None:
        self.scheduler = Scheduler(BlockAllocator(blocks, 4), Limits(4, 4, 4))
        self.speculation = Speculation()
        self.speculation.know("tune", index)
        prompt = Prompt("r", [1, 2], "tune")
        self.sequence = Sequence(prompt, 0, 200)
        self.sequence.tokens = [10, 11]
        self.sequence.computed = 3
        self.sequence.state = State.RUNNING

    def proposed(self) -> list[int]:
        plan = Plan(decodes=[self.sequence])
        self.speculation.propose(plan, self.scheduler, lambda _: "tune")
        assert plan.checks == ([self.sequence] if self.sequence.draft else [])
        return self.sequence.draft

    def judged(self, tokens: list[int]) -> list[bool]:
        return self.speculation.judge([self.sequence] * len(tokens), tokens)[0]


INDEX = [row([1, 2], [10, 11, 12, 13, 14])]


@pytest.mark.parametrize(
    ("chosen", "standing"),
    [
        ([12, 13, 14, 15], [True, True, True, True]),
        ([12, 13, 0, 15], [True, True, True, False]),
        ([0, 13, 14, 15], [True, False, False, False]),
    ],
)
def test_a_draft_stands_up_to_the_first_token_that_was_not_chosen(
    chosen: list[int], standing: list[bool]
) -> None:
    rig = Rig(DraftIndex(INDEX))
    assert rig.proposed() == [12, 13, 14]
    assert rig.judged(chosen) == standing
    assert rig.sequence.draft == []


def test_a_draft_takes_no_blocks_that_are_not_free() -> None:
    rig = Rig(DraftIndex(INDEX), blocks=1)
    assert rig.proposed() == []
    assert rig.scheduler.free_blocks == 1


def test_where_drafts_stand_they_become_longer() -> None:
    rig = Rig(DraftIndex([row([1, 2], list(range(10, 30)))]))
    lengths = []
    for _ in range(8):
        lengths.append(len(rig.proposed()))
        rig.judged([*rig.sequence.draft, 0])
    assert (lengths[0], lengths[-1]) == (3, LONGEST)


def test_where_drafts_do_not_stand_they_become_rare_and_come_back() -> None:
    rig = Rig(DraftIndex(INDEX))
    drafted = [bool(rig.proposed() and not rig.judged([0, 0, 0, 0])[1]) for _ in range(2000)]
    assert 1 < sum(drafted[:100]) < 8
    assert 1 <= sum(drafted[1000:]) < 4
