"""Weights in 8 and 4 bits: what they compute, for which positions, and whatever the company."""

from __future__ import annotations

import random
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
    put_own,
)
from torch.nn import functional

from afina.domain.clock import ManualClock
from afina.domain.models import BaseModel
from afina.errors import BadSettings
from afina.inside_settings import EngineSettings
from afina.model.four_bits import GROUP, dense, quantised
from afina.serving import library as serving_library
from afina.serving.journal import Journal
from afina.serving.library import Library
from afina.serving.scheduler import Limits
from afina.serving.small_weights import Bits, small_weight
from afina.settings import Settings

BOTH = pytest.mark.parametrize("bits", [8, 4])
FITTING: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(1000 * seed + length).choices(range(3, 250), k=length)


@BOTH
def test_a_product_in_few_bits_is_that_of_the_weight_its_codes_stand_for(bits: Bits) -> None:
    weight = (0.1 * torch.randn(48, 96)).bfloat16()
    bias, x = torch.randn(48).bfloat16(), torch.randn(2, 5, 96).bfloat16()
    small = small_weight(weight, bias, bits)
    assert small is not None
    if bits == 4:
        meant = dense(*quantised(weight), torch.float32).view(48, 96)
    else:
        meant = small.packed.float() * small.scales.float()[:, None]
    exact = functional.linear(x.float(), meant, bias.float())
    assert float((small.compute(x) - exact).abs().max() / exact.abs().max()) < 2e-2
    if bits == 8:  # half a step is 1/254 of a row's largest weight
        assert float((meant - weight.float()).abs().max()) < float(weight.abs().amax() / 250)
    else:  # scale and low are fitted, so that one weight may lose what the others of its group gain
        groups = weight.float().view(-1, GROUP)
        lost = (meant.view(-1, GROUP) - groups).square().mean(1)
        low, step = groups.amin(1, True), (groups.amax(1, True) - groups.amin(1, True)) / 15
        plain = ((groups - low) / step).round() * step + low
        assert (lost <= 1.01 * (plain - groups).square().mean(1)).all()


@BOTH
def test_a_row_has_the_same_bits_whatever_rows_stand_beside_it(bits: Bits) -> None:
    small = small_weight(torch.randn(64, 1536).bfloat16(), None, bits)
    assert small is not None
    x = torch.randn(130, 1536).bfloat16()
    whole = small.compute(x)
    for rows in (1, 2, 3, 4, 5, 16, 33, 64, 129):
        assert torch.equal(small.compute(x[1 : 1 + rows]), whole[1 : 1 + rows])


def test_shapes_that_the_products_do_not_take_stay_as_trained() -> None:
    assert small_weight(torch.ones(16, GROUP + 1).bfloat16(), None, 8) is None
    assert small_weight(torch.ones(17, GROUP).bfloat16(), None, 4) is None
    assert small_weight(torch.ones(16, GROUP), None, 4) is None


@BOTH
def test_an_answer_has_the_same_bits_alone_and_in_company(tmp_path: Path, bits: Bits) -> None:
    settings, record = make_data(tmp_path, **FITTING)
    lane = make_lane(settings.models / record.id, "bf16", bits=bits)
    assert lane.runner.weights == f"int{bits}"
    assert lane.runner.layers.all_small
    names: list[str | None] = [None, *(put_adapter(settings, record, s, rank=16) for s in range(3))]
    for name in names:
        if name is not None:
            load_adapter(settings, lane, name)
    asked = [
        Asked(prompt(length, seed=i), 10, names[i % 4])
        for i, length in enumerate((3, 40, 17, 64, 65, 130, 20, 31, 200))
    ]
    ask_all(lane, asked)
    # So few blocks that sequences are sent back to the queue and computed again, in other chunks.
    limits = Limits(32, 64, 32, prefill_tokens=48, chunk_tokens=20, keep_answers=False)
    hurried = make_lane(settings.models / record.id, "bf16", limits, 30, bits)
    for name in names:
        if name is not None:
            load_adapter(settings, hurried, name)
    for other, together in ((lane, False), (hurried, True)):
        again = [Asked(one.ids, one.new_tokens, one.adapter) for one in asked]
        ask_all(other, again, together=together)
        for one, two in zip(asked, again, strict=True):
            assert torch.equal(torch.stack(one.logits), torch.stack(two.logits))


@BOTH
def test_prompts_are_computed_as_trained_and_answers_in_few_bits(
    tmp_path: Path, bits: Bits
) -> None:
    settings, record = make_data(tmp_path, **FITTING)
    folder = settings.models / record.id
    asked = [[Asked(prompt(40), 6)], [Asked(prompt(40), 6)]]
    ask_all(make_lane(folder, "bf16"), asked[0])
    asked[1][0].forced = asked[0][0].tokens
    ask_all(make_lane(folder, "bf16", bits=bits), asked[1])
    ours, theirs = (torch.stack(group[0].logits) for group in asked)
    assert torch.equal(ours[0], theirs[0])
    assert all(not torch.equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))
    assert float((ours - theirs).abs().max() / ours.abs().max()) < (0.05 if bits == 8 else 0.5)


@BOTH
def test_kept_prefixes_change_no_bit(tmp_path: Path, bits: Bits) -> None:
    settings, record = make_data(tmp_path, **FITTING)
    folder = settings.models / record.id
    found = []
    for keep in (True, False):
        limits = Limits(32, 64, 32, keep_prefixes=keep, keep_answers=False)
        lane = make_lane(folder, "bf16", limits, bits=bits)
        asked, shared = [], prompt(100)
        for tail in (5, 40, 40, 1):
            one = Asked(shared + prompt(tail, seed=tail), 24)
            ask_all(lane, [one])
            shared = one.ids + one.tokens if tail == 40 else shared
            asked.append(one)
        found.append(asked)
        assert (lane.scheduler.prefixes.tokens_found > 200) == keep
    for one, other in zip(*found, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


def test_what_a_tune_learned_stays_as_trained(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, "bf16", **FITTING)
    engine = settings.engine.model_copy(update={"weights": "int4"})
    settings = settings.model_copy(update={"engine": engine})
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    full = library.load_own(base, put_own(settings, record, "full", 1, ("model", "lm_head")))
    last = library.load_own(base, put_own(settings, record, "blocks", 1, ("model.layers.1",)))
    found = [lane.runner.weights for lane in (base, full.lane, last.lane)]
    assert found == ["int4", "bf16", "int4"]
    assert not last.lane.runner.layers.all_small
    assert library.weights([base]) == "int4"


def test_a_base_that_only_kernels_make_quick_in_bf16_is_in_fp32_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)
    record = BaseModel(
        "base", "", "0" * 64, 1, capabilities={"precision": "bf16", "bf16_by": "kernels"}
    )
    monkeypatch.setattr(serving_library, "library", lambda: object())
    library = Library(settings, Journal(settings.journal), ManualClock())
    assert library.precision(record) == "bf16"
    monkeypatch.setattr(serving_library, "library", lambda: None)
    assert library.precision(record) == "fp32"
    asked = EngineSettings(weights="int4", precision="bf16")
    told = Settings(data=tmp_path, engine=asked)
    assert Library(told, Journal(told.journal), ManualClock()).precision(record) == "bf16"
    library.bits = 4
    with pytest.raises(BadSettings, match="base is computed in fp32") as refused:
        library.precision(record)
    assert refused.value.param == "engine.weights"


def test_few_bits_are_refused_where_the_precision_is_fp32(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"engine\.weights must be trained") as refused:
        Settings.load(data=tmp_path, engine=EngineSettings(weights="int8", precision="fp32"))
    assert refused.value.param == "engine.weights"


@pytest.mark.starter
@BOTH
def test_the_starter_in_few_bits_stays_far_within_what_publishing_allows(
    starter_dir: Path, bits: Bits
) -> None:
    asked = [[Asked(random.Random(5).choices(range(3, 49_000), k=40), 24)] for _ in range(2)]
    ask_all(make_lane(starter_dir, "bf16"), asked[0])
    asked[1][0].forced = asked[0][0].tokens
    ask_all(make_lane(starter_dir, "bf16", LIMITS, bits=bits), asked[1])
    ours, theirs = (torch.stack(group[0].logits).log_softmax(-1) for group in asked)
    assert float((ours.exp() * (ours - theirs)).sum(-1).mean()) < 5e-3
