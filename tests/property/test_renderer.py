"""Chats made of awkward pieces, over all families: what is trained begins with what is served."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, REASONING_FAMILY, Family, make_folder

from afina.errors import InvalidRequest
from afina.text.renderer import Renderer

ALL: dict[str, Family] = {**FAMILIES, "reasoning": REASONING_FAMILY}
PIECES = st.sampled_from(
    [
        *(" ", "\n", "\n\n", "\t", "\r\n", "\u2028", "a", "Yes", "assistant\n", "é", "🎉", "日本"),
        *("<", "|", ">", "<|im_end|>", "<|im_start|>", "<|im_start|>assistant\n", "<|eot_id|>"),
        *("</s>", "<s>", "[/INST]", "<start_of_turn>model\n", "<|end|>", "<|assistant|>\n"),
        *("<unk>", "<think>", "</think>", "▁", "\ufdd1"),
    ]
)
TEXT = st.lists(PIECES, max_size=5).map("".join)


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    root = tmp_path_factory.mktemp("families")
    return {name: Renderer.load(make_folder(root / name, f)) for name, f in ALL.items()}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(TEXT, min_size=2, max_size=6), weights=st.lists(st.sampled_from([0, 1])))
def test_every_learned_turn_begins_where_its_prompt_ends(
    name: str, renderers: dict[str, Renderer], texts: list[str], weights: list[int]
) -> None:
    renderer = renderers[name]
    chat: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)
    ]
    for number, weight in enumerate(weights[: len(chat) // 2]):
        chat[2 * number + 1]["weight"] = weight
    learned = [n for n, m in enumerate(chat) if m["role"] == "assistant" and m.get("weight", 1)]
    rows = renderer.training_rows([(chat, None)])[0]
    assert not isinstance(rows, InvalidRequest)
    for number in learned:
        prompt = renderer.prompt(chat[:number])
        row = rows[0] if len(rows) == 1 else rows[learned.index(number)]
        assert row.ids[: len(prompt)].tolist() == prompt
        assert row.learned[len(prompt)]
        assert not row.learned[len(prompt) - 1]
    if name != "reasoning":  # that one leaves parts of earlier turns out
        plain = renderer.training_row([{**m, "content": "a"} for m in chat])
        marks = renderer.tokenizer.control_ids
        found = sum(i in marks for i in rows[0].ids.tolist())
        assert found == sum(i in marks for i in plain.ids)
