"""A machine computes in what is quickest on it, and in what it was told to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afina.domain.models import BaseModel
from afina.domain.precision import precision_of_base, resolve_precision

BASE = BaseModel("base", "/models/base", "0" * 64, 1)
BY_PROCESSOR = replace(BASE, capabilities={"precision": "bf16"})
BY_KERNELS = replace(BASE, capabilities={"precision": "bf16", "bf16_by": "kernels"})
IN_FP32 = replace(BASE, capabilities={"precision": "fp32"})


def test_bf16_is_for_processors_that_multiply_it() -> None:
    assert resolve_precision("auto", "fpu avx2 fma f16c") == "fp32"
    assert resolve_precision("auto", "avx2 avx512_bf16") == "bf16"
    assert resolve_precision("auto", "", cuda=True) == "bf16"


@pytest.mark.parametrize("base", [BASE, BY_PROCESSOR, BY_KERNELS, IN_FP32])
def test_what_is_asked_for_holds_for_every_base(base: BaseModel) -> None:
    assert precision_of_base("fp32", base, "bf16") == "fp32"
    assert precision_of_base("bf16", base, "fp32", by_kernels=False) == "bf16"


def test_a_base_is_computed_as_it_was_probed() -> None:
    assert precision_of_base("auto", BASE, "bf16") == "bf16"
    assert precision_of_base("auto", BASE, "fp32") == "fp32"
    assert precision_of_base("auto", IN_FP32, "bf16") == "fp32"
    assert precision_of_base("auto", BY_PROCESSOR, "fp32", by_kernels=False) == "bf16"


def test_what_kernels_do_not_compute_is_in_fp32_where_only_they_make_bf16_quick() -> None:
    assert precision_of_base("auto", BY_KERNELS, "fp32") == "bf16"
    assert precision_of_base("auto", BY_KERNELS, "fp32", by_kernels=False) == "fp32"
