"""A weight laid out for the processor gives the same product, and none is laid out for one that
cannot read it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from afina.model import laid_out


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("after", ["none", "gelu"])
def test_a_laid_out_weight_gives_the_same_product(after: str) -> None:
    x, weight, bias = drawn(5, 48), drawn(32, 48), drawn(32)
    packed = laid_out.laid_out(weight)
    if packed is None:
        pytest.skip("oneDNN lays out no bf16 weights here")
    plain = functional.linear(x, weight, bias)
    plain = functional.gelu(plain) if after == "gelu" else plain
    found = laid_out.product(x, packed, bias, after)  # type: ignore[arg-type]
    assert torch.allclose(found.float(), plain.float(), rtol=2**-7, atol=2**-6)


def test_a_processor_that_reads_no_such_weights_takes_them_as_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("bf16 path needs the cpu support avx512")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuses)
    laid_out.can_lay_out.cache_clear()
    try:
        assert laid_out.laid_out(drawn(32, 48)) is None
    finally:
        laid_out.can_lay_out.cache_clear()


def test_what_is_not_bf16_stays_as_it_lies() -> None:
    assert laid_out.laid_out(drawn(32, 48, dtype=torch.float32)) is None
