"""Streamed text is whole characters, and together what decoding at once gives."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, make_folder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from afina.text.detokenizer import Detokenizer
from afina.text.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    root = tmp_path_factory.mktemp("families")
    return {n: ChatTokenizer.load(make_folder(root / n, f)) for n, f in FAMILIES.items()}


def stream(tokenizer: ChatTokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(i) for i in ids), detokenizer.finish()]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=30))
def test_text_comes_back_as_it_was(
    name: str, tokenizers: dict[str, ChatTokenizer], text: str
) -> None:
    tokenizer = tokenizers[name]
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)
    if tokenizer.is_byte_level:
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


@pytest.mark.parametrize("name", ["chatml", "llama3", "phi3"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_ids_stream_to_what_decoding_at_once_gives(
    name: str, tokenizers: dict[str, ChatTokenizer], data: st.DataObject
) -> None:
    tokenizer = tokenizers[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["chatml", "gemma", "mistral"])
def test_no_character_is_split(name: str, tokenizers: dict[str, ChatTokenizer]) -> None:
    tokenizer = tokenizers[name]
    ids = tokenizer.encode("日本語 🎉👩‍👩‍👧 é")
    for piece in stream(tokenizer, ids):
        assert "\ufffd" not in piece


def test_control_tokens_give_no_text(tokenizers: dict[str, ChatTokenizer]) -> None:
    tokenizer = tokenizers["chatml"]
    ids = tokenizer.encode_template("a<|im_end|>b")
    assert "".join(stream(tokenizer, ids)) == "ab"
    assert tokenizer.decode(ids, skip_control=False) == "a<|im_end|>b"


def test_bytes_that_are_no_character_hold_nothing_up(tokenizers: dict[str, ChatTokenizer]) -> None:
    for name in ("gemma", "mistral", "chatml"):
        tokenizer = tokenizers[name]
        lone = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xe6")
        pieces = stream(tokenizer, [lone, *tokenizer.encode("abc"), lone])
        assert "\ufffd" in pieces[1]
        assert pieces[-1] == "\ufffd"


def test_a_tokenizer_of_another_kind_streams_its_words() -> None:
    source = Tokenizer(
        models.WordPiece({"[UNK]": 0, "Hel": 1, "##lo": 2, "you": 3}, unk_token="[UNK]")
    )
    source.pre_tokenizer = pre_tokenizers.Whitespace()
    source.decoder = decoders.WordPiece()
    tokenizer = ChatTokenizer(source.to_str())
    assert stream(tokenizer, [1, 2, 3]) == ["Hel", "lo", " you", ""]
