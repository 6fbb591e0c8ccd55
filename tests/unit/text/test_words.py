"""The cache of words gives the ids that the tokenizer gives, or is not there."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, make_folder
from tokenizers import Regex, Tokenizer, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from afina.text import words
from afina.text.tokenizer import ChatTokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIGNS = " \n\t\r\x1cabcxyz'sTt_AZ09.,!éßÅ日🎉\u2028\u00a0\u0301\u200d½²"
SCRAPS = st.sampled_from(
    [
        *SIGNS,
        " ",
        " ",
        " the",
        "it's",
        "  ",
        " \n",
        "\n ",
        "<|im_end|>\n",
        "<|im_start|>user\n",
        "12",
    ]
)
TEXTS = st.lists(st.lists(SCRAPS, max_size=30).map("".join), min_size=2, max_size=5)
CORPUS = ["the cat it's 12 and 345 isn't THE END. naïve café\n\nYes no   x 日本 ½ 🎉"] * 20


def trained(pattern: str | None, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [pre.Split(Regex(pattern), "isolated")] if pattern else [pre.Digits(True)]
    tokenizer.pre_tokenizer = pre.Sequence([*split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS = {
    "gpt2": trained(None),
    "gpt2-split": trained(GPT2),
    "llama3": trained(LLAMA3),
    "qwen": trained(LLAMA3.replace("{1,3}", ""), normalizers.NFC()),
}
CACHED = {name: ChatTokenizer(kind.to_str()) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=TEXTS)
@example(texts=["a  b", " a", "", " ", "a ", "a \n b\n", "\x1c a \x1c"])
def test_ids_are_those_of_the_tokenizer_itself(name: str, texts: list[str]) -> None:
    tokenizer = CACHED[name]
    assert tokenizer._words is not None
    for _ in range(2):  # the second time from the table
        found = [ids.tolist() for ids in tokenizer.encode_templates(texts)]
        assert found == [tokenizer.encode_template(text) for text in texts]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_without_a_cache_are_encoded_as_before(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = ChatTokenizer.load(make_folder(tmp_path_factory.mktemp(name), FAMILIES[name]))
    chance = random.Random(3)
    texts = ["".join(chance.choices([*SIGNS, " the", "  ", " hello"], k=40)) for _ in range(60)]
    found = [ids.tolist() for ids in tokenizer.encode_templates(texts)]
    assert found == [tokenizer.encode_template(text) for text in texts]


def test_a_full_table_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_WORDS", 5)
    tokenizer = ChatTokenizer(KINDS["gpt2"].to_str())
    texts = [f"the cat {n} saw {n * 7} ends" for n in range(50)]
    for _ in range(3):
        found = [ids.tolist() for ids in tokenizer.encode_templates(texts[:9])]
        assert found == [tokenizer.encode_template(text) for text in texts[:9]]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"String": " "}, "content": "_"}),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": r"\w+ \w+"}, "behavior": "Isolated"}),
        ("pre_tokenizer", None),
        ("model", {"type": "Unigram"}),
        ("model", {"type": "BPE", "dropout": 0.1}),
        ("added_tokens", [{"content": "a b", "lstrip": False, "rstrip": False, "single_word": False}]),
        ("added_tokens", [{"content": "a", "lstrip": True, "rstrip": False, "single_word": False}]),
    ],
)  # fmt: skip
def test_whoever_is_not_known_to_cut_at_spaces_has_no_cache(place: str, value: object) -> None:
    known = json.loads(KINDS["gpt2"].to_str())
    assert words.may_cut_at_spaces(known)
    assert not words.may_cut_at_spaces({**known, place: value})
