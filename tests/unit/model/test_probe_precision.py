"""On a processor without products of bf16 a base is in bf16 where kernels compute all its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.kernel_ways import kernels_made
from tests.tiny import make_tiny_model

from afina.model import probe as probing
from afina.model.kernels.library import HALVES

WHOLE_HEADS: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def _without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "machine_precision", lambda: "fp32")


def test_kernels_that_compute_all_layers_make_it_bf16(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, head_dim=32, **WHOLE_HEADS)
    with kernels_made(HALVES):
        found = probing.probe(tmp_path)
    assert found.refusal is None
    assert (found.capabilities["precision"], found.capabilities["bf16_by"]) == ("bf16", "kernels")
    assert found.capabilities["train_tokens_per_s"] > 0


@pytest.mark.parametrize("architecture", ["gemma3", "phi", "mixtral"])
def test_a_network_of_another_make_stays_in_fp32(tmp_path: Path, architecture: str) -> None:
    make_tiny_model(tmp_path, architecture=architecture)
    with kernels_made(HALVES):
        found = probing.probe(tmp_path)
    assert found.refusal is None
    assert found.capabilities["precision"] == "fp32"
    assert "bf16_by" not in found.capabilities
    assert found.capabilities["train_tokens_per_s"] > 0


def test_without_kernels_it_is_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_model(tmp_path, head_dim=32, **WHOLE_HEADS)
    monkeypatch.setattr(probing, "library", lambda: None)
    assert probing.probe(tmp_path).capabilities["precision"] == "fp32"
