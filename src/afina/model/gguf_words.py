"""A byte-level BPE tokenizer as GGUF holds it: words, kinds, merges and the name of its splitter.

llama.cpp splits text with rules that it knows by name (`tokenizer.ggml.pre`). The name is found by
comparing the whole splitter of tokenizer.json with those that llama.cpp has, not by a hash of one
sample's ids: an unknown one is refused, since a wrong name would tokenise some texts differently
and say nothing. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from afina.errors import BaseRefused

NORMAL: Final = 1
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5

_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2: Final = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2: Final = ({"type": "ByteLevel", "use_regex": True},)


@dataclass(frozen=True)
class _Splitter:
    """What tokenizer.json must say for llama.cpp's rule of that name to do the same."""

    name: str
    steps: tuple[Mapping[str, object], ...]
    whole_words: bool = False
    """Whether a word of the vocabulary is taken whole without merging (`ignore_merges`)."""


def _split_by(pattern: str) -> tuple[Mapping[str, object], ...]:
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return split, {"type": "ByteLevel", "use_regex": False}


_SPLITTERS: Final = (
    _Splitter("smollm", ({"type": "Digits", "individual_digits": True}, *_GPT2)),
    _Splitter("gpt-2", _GPT2),
    _Splitter("llama-bpe", _split_by(_LLAMA3), whole_words=True),
    _Splitter("qwen2", _split_by(_QWEN2)),
)
_REMEDY: Final = "Export it merged (`--format merged`) and use llama.cpp's convert_hf_to_gguf.py."


@dataclass(frozen=True)
class Words:
    """The vocabulary, by id."""

    splitter: str
    texts: list[str]
    kinds: list[int]
    merges: list[str]


def read_words(source: str, size: int) -> Words:
    """From the text of tokenizer.json to the vocabulary of a network with `size` rows, of which
    those without a word become unused ones. Raises BaseRefused for a tokenizer that llama.cpp would
    not follow."""
    data = json.loads(source)
    model: Mapping[str, Any] = data["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refused("it is no byte-level BPE")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise _refused(f"it has a {name}")
    by_id: dict[int, tuple[str, int]] = {id: (text, NORMAL) for text, id in model["vocab"].items()}
    for token in data.get("added_tokens", []):
        by_id[token["id"]] = token["content"], CONTROL if token["special"] else USER_DEFINED
    beyond = max(by_id, default=-1) + 1
    if beyond > size:
        raise _refused(f"it has ids up to {beyond - 1}, and the network {size} rows")
    words = [by_id.get(id, (f"[PAD{id}]", UNUSED)) for id in range(size)]
    return Words(
        splitter=_splitter_name(data),
        texts=[text for text, _ in words],
        kinds=[kind for _, kind in words],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
    )


def _splitter_name(data: Mapping[str, Any]) -> str:
    normalizer = (data.get("normalizer") or {}).get("type")
    found = data.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", [found]) if found.get("type") == "Sequence" else [found]
    whole_words = bool(data["model"].get("ignore_merges"))
    for splitter in _SPLITTERS:
        # Qwen's tokenizer composes characters first; llama.cpp leaves that out for everybody.
        composes = normalizer == "NFC" and splitter.name == "qwen2"
        if normalizer is not None and not composes:
            continue
        if splitter.whole_words == whole_words and _are_alike(steps, splitter.steps):
            return splitter.name
    raise _refused("its way of splitting text is none that afina knows llama.cpp's name of")


def _are_alike(steps: list[Any], wanted: tuple[Mapping[str, object], ...]) -> bool:
    return [_told(step) for step in steps] == [dict(step) for step in wanted]


def _told(step: Mapping[str, Any]) -> dict[str, object] | None:
    """A splitter's step, as far as it decides the pieces."""
    kind = step.get("type")
    if kind == "Digits":
        return {"type": kind, "individual_digits": step.get("individual_digits")}
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return {"type": kind, "use_regex": step.get("use_regex", True)}
    if kind == "Split":
        pattern = (step.get("pattern") or {}).get("Regex")
        behavior, invert = step.get("behavior"), bool(step.get("invert"))
        return {"type": kind, "pattern": pattern, "behavior": behavior, "invert": invert}
    return None


def _refused(reason: str) -> BaseRefused:
    return BaseRefused(f"The tokenizer cannot be written as GGUF: {reason}.", remedy=_REMEDY)
