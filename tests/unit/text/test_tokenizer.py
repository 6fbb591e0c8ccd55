"""Loading tokenizers, and what tells one from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.errors import BaseRefused
from afina.text.renderer import Renderer
from afina.text.tokenizer import ChatTokenizer


def test_a_folder_without_a_tokenizer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BaseRefused, match=r"no tokenizer\.json") as caught:
        ChatTokenizer.load(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model": 3}'])
def test_a_damaged_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BaseRefused, match="cannot be read"):
        ChatTokenizer.load(tmp_path)


def test_added_tokens_of_the_configuration_are_added(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, FAMILIES["chatml"])
    size = ChatTokenizer.load(folder).vocab_size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    entry = {"content": "<|new|>", "special": True, "normalized": False}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**config, "added_tokens_decoder": {str(size): entry}})
    )
    tokenizer = ChatTokenizer.load(folder)
    assert tokenizer.vocab_size == size + 1
    assert tokenizer.encode_template("a<|new|>")[-1] == size
    assert tokenizer.has_control("x<|new|>")


def test_the_fingerprint_changes_with_template_and_tokenizer(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", FAMILIES["chatml"])
    same = make_folder(tmp_path / "same", FAMILIES["chatml"])
    other = make_folder(tmp_path / "other", FAMILIES["llama3"])
    assert Renderer.load(one).fingerprint == Renderer.load(same).fingerprint
    assert Renderer.load(one).fingerprint != Renderer.load(other).fingerprint
    (same / "chat_template.jinja").write_text(FAMILIES["chatml"].template + " ")
    assert Renderer.load(one).template_sha256 != Renderer.load(same).template_sha256


def test_end_tokens_are_the_templates_and_the_configurations(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, FAMILIES["chatml"])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert Renderer.load(folder).end_tokens == (0, 2)
    (folder / "config.json").write_text(json.dumps({"text_config": {"n_positions": 77}}))
    assert Renderer.load(folder).context_tokens == 77
