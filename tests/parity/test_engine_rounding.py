"""How far single precision takes the engine from the exact answer: no farther than its judge.

The judge is PEFT in transformers, computed in double precision. The adapters' terms are about as
large as the base's own; far louder ones amplify whatever anybody rounds.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine_rig import (
    ALL_LAYERS,
    Asked,
    ask_all,
    load_adapter,
    make_adapter,
    make_data,
    make_lane,
    put_adapter,
)

MILLIONTH = 1e-6
LENGTHS = (1, 17, 64, 65, 130)
RANKS = (8, 16, 40)
STRENGTH = 0.1


def off(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, as a part of the largest logit."""
    return float((ours.double() - exact).abs().max() / exact.abs().max())


def judge_of(folder: Path, files: dict[str, bytes], saved: Path) -> Any:
    """The base in transformers, with an adapter of PEFT's where files are given."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    if not files:
        return model.eval()
    saved.mkdir()
    for name, raw in files.items():
        (saved / name).write_bytes(raw)
    return PeftModel.from_pretrained(model, saved).eval()


def judged(judge: Any, asked: list[Asked]) -> list[torch.Tensor]:
    """For each request the logits that choose its tokens."""
    found = []
    with torch.inference_mode():
        for one in asked:
            logits = judge(input_ids=torch.tensor([one.ids + one.tokens]), use_cache=False).logits
            found.append(logits[0, len(one.ids) - 1 : -1])
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_in_fp32_company_moves_no_logit_by_a_millionth_nor_the_engine_farther_than_peft(
    tmp_path: Path,
) -> None:
    settings, record = make_data(tmp_path)
    folder = settings.models / record.id
    names = [
        put_adapter(settings, record, seed, rank=rank, strength=STRENGTH)
        for seed, rank in enumerate(RANKS)
    ]
    rng = random.Random(4)
    asked = [
        Asked(rng.choices(range(3, 250), k=length), 10, name)
        for length in LENGTHS
        for name in (None, *names)
    ]
    alone = [Asked(one.ids, 10, one.adapter) for one in asked]
    for requests, together in ((asked, True), (alone, False)):
        lane = make_lane(folder)
        for name in names:
            load_adapter(settings, lane, name)
        ask_all(lane, requests, together=together)
        for one, other in zip(asked, alone, strict=True):
            other.forced = one.tokens
    for one, other in zip(asked, alone, strict=True):
        assert off(torch.stack(other.logits), torch.stack(one.logits).double()) < MILLIONTH

    for number, tune in enumerate((None, *names)):
        files = {}
        if tune is not None:
            files = make_adapter(folder, number - 1, RANKS[number - 1], STRENGTH, ALL_LAYERS)
        judge = judge_of(folder, files, tmp_path / f"saved-{number}")
        mine = [one for one in asked if one.adapter == tune]
        rounded, exact = (judged(judge.to(dtype), mine) for dtype in (torch.float32, torch.float64))
        ours = max(off(torch.stack(o.logits), e) for o, e in zip(mine, exact, strict=True))
        theirs = max(off(r, e) for r, e in zip(rounded, exact, strict=True))
        assert ours < max(MILLIONTH, 2 * theirs)
