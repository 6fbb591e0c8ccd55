"""The plain cache: where the processor does not multiply bf16, attention is that of fp32."""

from __future__ import annotations

import pytest
import torch

from afina.model import slots
from afina.model.packed import Masks, group_spans
from afina.model.slots import AdvanceContext, PrefillContext, SlotCache

HEADS, GROUPS, SIZE, PROMPT, CAPACITY = 4, 2, 8, 5, 16
HOW = {"scaling": SIZE**-0.5, "sliding_window": None, "softcap": None}


def attended(dtype: torch.dtype) -> list[torch.Tensor]:
    """What a prompt and the token after it attend to, the same numbers in any type."""
    source = torch.Generator().manual_seed(1)

    def drawn(heads: int, tokens: int) -> torch.Tensor:
        found = torch.randn(1, heads, tokens, SIZE, generator=source)
        return found.bfloat16().to(dtype)

    cache = SlotCache(1, PROMPT + 1)
    groups = group_spans([(0, PROMPT)], CAPACITY)
    prefill = PrefillContext(CAPACITY, groups, Masks(), cache, [(0, 0, PROMPT)])
    advance = AdvanceContext(cache, torch.tensor([PROMPT]))
    return [
        context.attend(0, drawn(HEADS, n), drawn(GROUPS, n), drawn(GROUPS, n), **HOW)
        for context, n in ((prefill, CAPACITY), (advance, 1))
    ]


def test_attention_of_bf16_is_that_of_fp32_where_bf16_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "can_lay_out", lambda: False)
    for narrow, wide in zip(attended(torch.bfloat16), attended(torch.float32), strict=True):
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(narrow, wide.bfloat16())


def test_elsewhere_it_stays_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "can_lay_out", lambda: True)
    for narrow, wide in zip(attended(torch.bfloat16), attended(torch.float32), strict=True):
        assert not torch.equal(narrow, wide.bfloat16())
        assert torch.allclose(narrow.float(), wide, atol=2e-2)
