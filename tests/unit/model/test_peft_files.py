"""Adapters leave and come back in PEFT's format; what we do not compute is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afina.domain.runs import LoraSpec
from afina.errors import BaseRefused, InvalidRequest
from afina.model.peft_files import (
    CONFIG,
    WEIGHTS,
    AdapterConfig,
    adapter_bytes,
    parse_config,
    read_adapter,
)

SPEC = AdapterConfig.of(LoraSpec(rank=2, alpha=4.0, target_modules=("q_proj",)), "tiny")


def config_with(**changes: Any) -> bytes:
    return json.dumps({**json.loads(SPEC.to_bytes()), **changes}).encode()


def pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {"model.layers.0.self_attn.q_proj": (torch.ones(2, 8), torch.zeros(6, 2))}


def write(folder: Path, config: bytes, weights: bytes) -> tuple[Path, Path]:
    (folder / CONFIG).write_bytes(config)
    (folder / WEIGHTS).write_bytes(weights)
    return folder / CONFIG, folder / WEIGHTS


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config, found = read_adapter(*write(tmp_path, SPEC.to_bytes(), adapter_bytes(pairs())))
    assert config == SPEC
    assert config.scaling == 2.0
    assert list(found) == list(pairs())
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(v for d in (found, pairs()) for v in d.values()), strict=True)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "os"}},
        {"use_dora": "yes"},
        {"bias": "all"},
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"layers_to_transform": [0]},
        {"peft_type": "IA3"},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj; import os"]},
        {"r": 0},
        {"r": True},
        {"lora_alpha": "16"},
        {"something_new": {"a": 1}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_setting_that_is_not_computed_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(changes))):
        parse_config(config_with(**changes))


def test_what_peft_itself_writes_is_read(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    ).save_pretrained(tmp_path)
    found = parse_config((tmp_path / CONFIG).read_bytes())
    assert (found.rank, found.alpha, found.target_modules) == (8, 16.0, ("q_proj", "v_proj"))


def test_rank_stabilised_adapters_scale_by_the_root() -> None:
    found = parse_config(config_with(use_rslora=True, r=4, lora_alpha=8))
    assert found.scaling == 4.0


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"base_model.model.x.q_proj.lora_A.weight": torch.ones(2, 8)},
        {
            "base_model.model.x.q_proj.lora_A.weight": torch.ones(3, 8),
            "base_model.model.x.q_proj.lora_B.weight": torch.ones(6, 3),
        },
        {
            "base_model.model.x.k_proj.lora_A.weight": torch.ones(2, 8),
            "base_model.model.x.k_proj.lora_B.weight": torch.ones(6, 2),
        },
        {"model.embed_tokens.weight": torch.ones(4, 4)},
    ],
    ids=["empty", "no partner", "rank", "untargeted", "not lora"],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    from safetensors.torch import save

    with pytest.raises(InvalidRequest):
        read_adapter(*write(tmp_path, SPEC.to_bytes(), save(tensors)))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_configurations(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_config(raw)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseRefused, match="cut off"):
        read_adapter(*write(tmp_path, SPEC.to_bytes(), adapter_bytes(pairs())[:-3]))
