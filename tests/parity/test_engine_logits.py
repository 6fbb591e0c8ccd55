"""The engine computes what transformers and PEFT compute, in any company, chunked or not."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine_rig import (
    ALL_LAYERS,
    LIMITS,
    Asked,
    ask_all,
    load_adapter,
    make_adapter,
    make_data,
    make_lane,
    put_adapter,
    torch_alone,
)

from afina.serving.lane import Lane
from afina.serving.scheduler import Limits

LENGTHS = (1, 2, 15, 16, 17, 47, 63, 64, 65, 130, 300)


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(1000 * seed + length).choices(range(3, 250), k=length)


@functools.cache
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def reference_logits(model: Any, ids: list[int], answer: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids + answer]), use_cache=False).logits[0]
    return logits[len(ids) - 1 : -1]


def assert_same(asked: Asked, expected: torch.Tensor) -> None:
    ours = torch.stack(asked.logits)
    worst = float((ours - expected).abs().max() / expected.abs().max())
    assert worst < 5e-6, f"off by {worst:.2g} of the largest logit at {len(asked.ids)} tokens"


@pytest.fixture(params=["kernels", "torch"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the kernels, where this machine has them, and with torch alone."""
    with torch_alone() if request.param == "torch" else contextlib.nullcontext():
        yield


@pytest.mark.parametrize(
    "architecture",
    ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "granite"],
)
def test_engine_equals_transformers_for_each_architecture(
    tmp_path: Path, architecture: str
) -> None:
    settings, record = make_data(tmp_path, architecture=architecture)
    folder = settings.models / record.id
    lane = make_lane(folder, limits=Limits(32, 64, 32, prefill_tokens=40, chunk_tokens=13))
    asked = [Asked(prompt(length), new_tokens=5) for length in (1, 15, 40, 65, 130)]
    ask_all(lane, asked)
    for one in asked:
        assert_same(one, reference_logits(reference(folder), one.ids, one.tokens))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma2"])
def test_the_short_forward_pass_gives_the_bits_of_transformers_own(
    tmp_path: Path, architecture: str
) -> None:
    settings, record = make_data(tmp_path, architecture=architecture)
    folder = settings.models / record.id
    with torch_alone():
        ours, theirs = make_lane(folder, "bf16"), make_lane(folder, "bf16")
    assert ours.runner.is_flat == (architecture != "gemma2")
    theirs.runner._forward = theirs.runner._through_transformers
    asked = [[Asked(prompt(length), new_tokens=5) for length in (1, 40, 130)] for _ in range(2)]
    for lane, group in zip((ours, theirs), asked, strict=True):
        ask_all(lane, group)
    for one, other in zip(*asked, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


@pytest.mark.parametrize("chunk", [7, 16, 64, 512])
def test_prompts_of_all_lengths_equal_transformers_whatever_the_chunks(
    tmp_path: Path, chunk: int
) -> None:
    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    lane = make_lane(folder, limits=Limits(32, 64, 32, prefill_tokens=96, chunk_tokens=chunk))
    asked = [Asked(prompt(length), new_tokens=20) for length in LENGTHS]
    ask_all(lane, asked)
    for one in asked:
        assert_same(one, reference_logits(reference(folder), one.ids, one.tokens))


def test_rows_that_come_and_go_equal_transformers(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    lane = make_lane(folder, limits=Limits(5, 64, 32, prefill_tokens=96, chunk_tokens=32))
    lengths = (120, 3, 60, 126, 10, 100, 33, 250, 1, 118, 40, 5)
    asked = [
        Asked(prompt(length, seed=3), new_tokens=3 + 7 * i % 29) for i, length in enumerate(lengths)
    ]
    ask_all(lane, asked)
    for one in asked:
        assert_same(one, reference_logits(reference(folder), one.ids, one.tokens))


def test_greedy_answers_equal_generate(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    asked = [Asked(prompt(length, seed=2), new_tokens=24) for length in (3, 20, 64, 100)]
    ask_all(make_lane(folder), asked)
    for one in asked:
        out = reference(folder).generate(
            torch.tensor([one.ids]),
            attention_mask=torch.ones(1, len(one.ids), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert one.tokens == out[0, len(one.ids) :].tolist()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_many_adapters_in_one_batch_equal_peft_one_by_one(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    lane = make_lane(folder)
    shapes: dict[str, dict[str, Any]] = {}
    attention = ("q_proj", "v_proj")
    for seed, rank, targets in ((1, 8, ALL_LAYERS), (2, 16, attention), (3, 40, ALL_LAYERS)):
        sha256 = put_adapter(settings, record, seed, rank=rank, targets=targets)
        load_adapter(settings, lane, sha256)
        shapes[sha256] = {"seed": seed, "rank": rank, "targets": targets}
    names: list[str | None] = [None, *shapes]
    asked = [
        Asked(prompt(length, seed=i), new_tokens=6, adapter=names[i % len(names)])
        for i, length in enumerate((5, 30, 64, 70, 12, 90, 33, 2))
    ]
    ask_all(lane, asked)
    for sha256, shape in shapes.items():
        saved = tmp_path / sha256
        saved.mkdir()
        for name, raw in make_adapter(folder, strength=1.0, **shape).items():
            (saved / name).write_bytes(raw)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        judge = PeftModel.from_pretrained(base, saved).eval()
        for one in asked:
            if one.adapter == sha256:
                assert_same(one, reference_logits(judge, one.ids, one.tokens))
    for one in asked:
        if one.adapter is None:
            assert_same(one, reference_logits(reference(folder), one.ids, one.tokens))


@pytest.mark.usefixtures("way")
def test_in_bf16_kept_prefixes_change_no_bit(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    folder = settings.models / record.id
    without = Limits(32, 64, 32, keep_prefixes=False)
    found = []
    for limits in (LIMITS, without):
        lane = make_lane(folder, "bf16", limits)
        sha256 = put_adapter(settings, record, 1, rank=16)
        load_adapter(settings, lane, sha256)
        asked = []
        for adapter in (None, sha256):
            shared = prompt(100)
            for tail in (5, 40, 40, 1):
                one = Asked(shared + prompt(tail, seed=tail), 12, adapter)
                ask_all(lane, [one])
                # What was answered is part of the next prompt, as in a chat.
                shared = one.ids + one.tokens if tail == 40 else shared
                asked.append(one)
        found.append(asked)
        assert (lane.scheduler.prefixes.tokens_found > 500) == limits.keep_prefixes
    for one, other in zip(*found, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


def company(settings: Any, record: Any, lane: Lane) -> list[Asked]:
    adapters = [put_adapter(settings, record, seed, rank=16) for seed in range(5)]
    for sha256 in adapters:
        load_adapter(settings, lane, sha256)
    names: list[str | None] = [None, *adapters]
    return [
        Asked(prompt(length, seed=i), new_tokens=12, adapter=names[i % 6])
        for i, length in enumerate((3, 40, 17, 64, 65, 130, 20, 31, 80, 9, 200, 50))
    ]


@pytest.mark.usefixtures("way")
def test_in_bf16_an_answer_has_the_same_bits_alone_and_in_company(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    lane = make_lane(settings.models / record.id, "bf16")
    asked = company(settings, record, lane)
    ask_all(lane, asked)
    alone = [Asked(one.ids, one.new_tokens, one.adapter) for one in asked]
    ask_all(lane, alone, together=False)
    for one, other in zip(asked, alone, strict=True):
        assert one.tokens == other.tokens
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


@pytest.mark.usefixtures("way")
def test_in_bf16_chunks_and_lost_blocks_change_no_bit(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    folder = settings.models / record.id
    calm = make_lane(folder, "bf16")
    asked = company(settings, record, calm)
    ask_all(calm, asked)
    # So few blocks that sequences are sent back to the queue and computed again.
    hurried = make_lane(folder, "bf16", Limits(32, 64, 32, prefill_tokens=48, chunk_tokens=20), 30)
    again = company(settings, record, hurried)
    ask_all(hurried, again)
    for one, other in zip(asked, again, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


@pytest.mark.starter
def test_the_starter_answers_with_the_same_bits_in_company(starter_dir: Path) -> None:
    lane = make_lane(starter_dir, "bf16")
    rng = random.Random(5)
    lengths = [rng.randrange(1, 150) for _ in range(12)]
    asked = [Asked(rng.choices(range(3, 49_000), k=n), new_tokens=6) for n in lengths]
    ask_all(lane, asked)
    for one in asked[:4]:
        alone = Asked(one.ids, one.new_tokens)
        ask_all(lane, [alone])
        assert alone.tokens == one.tokens
        assert torch.equal(torch.stack(alone.logits), torch.stack(one.logits))
