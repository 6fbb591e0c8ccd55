"""A step through the kernels: what torch computes, in any company, inside its own memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine_rig import (
    LIMITS,
    Asked,
    ask_all,
    load_adapter,
    make_data,
    make_lane,
    put_adapter,
    torch_alone,
)
from tests.kernel_ways import WAYS, kernels_made

from afina.model.kernels import library as kernels
from afina.model.kernels.library import Way
from afina.serving.lane import Lane
from afina.serving.layout import Row
from afina.serving.native_rows import StepRows, flat_rows
from afina.serving.pages import Pages
from afina.serving.scheduler import Limits
from afina.serving.sequences import Plan, Prompt, Sequence

pytestmark = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler, or a processor without bf16 products"
)
SHAPES: list[dict[str, Any]] = [
    {},
    {"hidden_size": 96, "intermediate_size": 160, "head_dim": 48, "num_attention_heads": 6},
    {"head_dim": 32, "num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 160},
    {"head_dim": 80, "num_attention_heads": 2, "num_key_value_heads": 2},
    {"architecture": "mistral"},
    {"architecture": "qwen2", "head_dim": 16},
    {"architecture": "qwen3", "head_dim": 64},
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(1000 * seed + length).choices(range(3, 250), k=length)


def lane_of(folder: Path, limits: Limits = LIMITS) -> Lane:
    lane = make_lane(folder, "bf16", limits=limits)
    assert lane.runner.is_native
    return lane


def through_torch(folder: Path, precision: str = "bf16") -> Lane:
    with torch_alone():
        lane = make_lane(folder, precision)
    assert not lane.runner.is_native
    return lane


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_the_kernels_are_as_near_to_fp32_as_torch_is(tmp_path: Path, shape: dict[str, Any]) -> None:
    settings, record = make_data(tmp_path, **shape)
    folder = settings.models / record.id
    names = [None, *(put_adapter(settings, record, s, rank=r) for s, r in ((1, 8), (2, 40)))]
    lengths = (1, 15, 17, 40, 130)
    exact = through_torch(folder, "fp32")
    off: dict[str, float] = {}
    forced: list[list[int]] = []
    truth: list[torch.Tensor] = []
    for way, lane in (
        ("fp32", exact),
        ("torch", through_torch(folder)),
        ("kernels", lane_of(folder)),
    ):
        for name in names[1:]:
            assert name is not None
            load_adapter(settings, lane, name)
        asked = [Asked(prompt(n), 9, names[i % 3]) for i, n in enumerate(lengths)]
        for one, tokens in zip(asked, forced, strict=False):
            one.forced = tokens
        ask_all(lane, asked)
        if way == "fp32":
            forced = [one.tokens for one in asked]
            truth = [torch.stack(one.logits) for one in asked]
            continue
        off[way] = sum(
            float((torch.stack(one.logits) - right).square().sum())
            for one, right in zip(asked, truth, strict=True)
        )
    assert off["kernels"] < 1.3 * off["torch"]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", SHAPES[:5], ids=lambda s: "-".join(map(str, s.values())))
def test_a_position_has_its_bits_whatever_the_chunks_company_and_threads(
    tmp_path: Path, shape: dict[str, Any]
) -> None:
    a_position_has_its_bits(tmp_path, shape)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("way", WAYS)
def test_so_it_is_in_every_way_that_the_kernels_are_made(tmp_path: Path, way: Way) -> None:
    with kernels_made(way):
        a_position_has_its_bits(tmp_path, SHAPES[2])


def a_position_has_its_bits(tmp_path: Path, shape: dict[str, Any]) -> None:
    settings, record = make_data(tmp_path, **shape)
    folder = settings.models / record.id
    names = [None, *(put_adapter(settings, record, s, rank=16 * s) for s in (1, 2))]
    seen: list[list[torch.Tensor]] = []
    for threads, chunk, together in ((1, 512, False), (2, 7, True), (2, 33, True)):
        torch.set_num_threads(threads)
        lane = lane_of(folder, Limits(32, 64, 32, prefill_tokens=96, chunk_tokens=chunk))
        for name in names[1:]:
            assert name is not None
            load_adapter(settings, lane, name)
        lengths = (1, 16, 31, 64, 130)
        asked = [Asked(prompt(n), 6, names[i % 3]) for i, n in enumerate(lengths)]
        ask_all(lane, asked, together=together)
        seen.append([torch.stack(one.logits) for one in asked])
    for one, *others in zip(*seen, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_sampled_positions_have_the_bits_of_prompted_ones(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    lane = lane_of(settings.models / record.id)
    name = put_adapter(settings, record, 1, rank=16)
    load_adapter(settings, lane, name)
    sampled = Asked(prompt(20), 8, name)
    ask_all(lane, [sampled])
    prompted = Asked([*sampled.ids, *sampled.tokens[:-1]], 1, name)
    ask_all(lane, [prompted])
    assert torch.equal(prompted.logits[-1], sampled.logits[-1])


def test_what_lies_in_a_block_behind_a_sequence_is_never_read_as_numbers(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    clean, soiled = lane_of(folder), lane_of(folder)
    for tensor in (*soiled.runner._cache._keys, *soiled.runner._cache._values):
        assert tensor is not None
        with torch.inference_mode():
            tensor.fill_(float("nan"))
    both = [Asked(prompt(21), 20) for _ in range(2)]
    ask_all(clean, both[:1])
    ask_all(soiled, both[1:])
    assert torch.equal(*(torch.stack(one.logits) for one in both))


def test_rows_of_an_adapter_stand_side_by_side_and_are_all_there() -> None:
    def sequence(name: str, adapter: str | None) -> Sequence:
        made = Prompt(name, [5, 6, 7], adapter)
        return Sequence(made, 0, 4, blocks=[0], computed=2)

    plan = Plan(decodes=[sequence(f"r{i}", (None, "b", "a")[i % 3]) for i in range(7)])
    rows = flat_rows(plan)
    assert [row.at for row in rows] == list(range(7))
    adapters = [row.sequence.prompt.adapter or "" for row in rows]
    assert adapters == sorted(adapters)
    assert {row.sequence for row in rows} == set(plan.decodes)


@pytest.mark.parametrize(("token", "block"), [(300, 0), (-1, 0), (5, 9), (5, -1)])
def test_a_row_that_points_outside_is_refused(token: int, block: int) -> None:
    sequence = Sequence(Prompt("r", [5, token]), 0, 4, blocks=[block])
    rows = StepRows([Row(sequence, 0, 2)], [1], Pages(torch.bfloat16, 1), few_bits=False)
    with pytest.raises(ValueError, match="not of the"):
        rows.check(300, 9)


def test_unusual_networks_go_through_torch(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, head_dim=24)
    assert not make_lane(settings.models / record.id, "bf16").runner.is_native
    assert not make_lane(settings.models / record.id, "fp32").runner.is_native


def test_an_adapter_that_comes_and_goes_leaves_no_trace(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    lane = lane_of(settings.models / record.id)
    names = [put_adapter(settings, record, s, rank=16, targets=("q_proj",)) for s in (1, 2)]
    before = Asked(prompt(30), 5)
    ask_all(lane, [before])
    for name in names:
        load_adapter(settings, lane, name)
        ask_all(lane, [Asked(prompt(30, 1), 5, name)])
        lane.forget(name)
    after = Asked(prompt(30, 0), 5)
    ask_all(lane, [after])
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))
