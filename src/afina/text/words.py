r"""Ids of many texts, word by word from a cache: several times as fast as the tokenizer itself.

Most tokenizers of today cut a text into words before they look anything up, with patterns of which
no alternative takes a space behind a character that is none. Then a single space between two
characters that are no white space always begins a new word, the text may be cut there, and a word
with its space has the same ids in every text. Words that were met before come from a table; new
ones are encoded by the tokenizer, many at once.

Which tokenizers those are is read from tokenizer.json, by the exact patterns that are known here
(`_PATTERNS`); all others have no cache. tests/unit/text/test_words.py holds the ids equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MOST_WORDS: Final = 200_000
"""Some thirty megabytes. Then the table begins anew: what is common is soon back."""
_LONGEST: Final = 48
"""Longer words are mostly addresses and numbers that stand once."""
_CONTRACTIONS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS: Final = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            rf"{_CONTRACTIONS}|{_LETTERS}|{number}{_REST}"
            for number in (r"\p{N}{1,3}", r"\p{N}", r"\p{N}{1,2}", r"\p{N}+")
        ),
    }
)
Encode = Callable[[list[str]], list[list[int]]]


class WordCache:
    """Words met so far, each with its ids as bytes of int32. `encode` encodes many texts."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: tuple[dict[str, bytes], ...] = ({}, {}, {})
        """Words that texts begin with; those with a space before and behind; those that end one."""

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text, as the tokenizer itself gives them."""
        found = [self._look_up(text) for text in texts]
        self._fill([text for text in found if text.missing])
        return [np.frombuffer(b"".join(text.parts), np.int32) for text in found]

    def _look_up(self, text: str) -> _Found:
        words = text.split(" ")
        found = self._found(words)
        if all(_is_safe(words, place) for place in found.missing):
            return found  # what is known is safe: nothing else gets into the table
        return self._found(_joined(words))

    def _found(self, words: list[str]) -> _Found:
        first, middle, last = self._known
        parts: list[bytes | None] = list(map(middle.get, words))
        if len(words) > 1:
            parts[-1] = last.get(words[-1])
        parts[0] = first.get(words[0])
        missing = [n for n, part in enumerate(parts) if part is None] if None in parts else []
        return _Found(words, parts, missing)  # type: ignore[arg-type]

    def _fill(self, texts: list[_Found]) -> None:
        """Encodes what is new in the texts, all words at once."""
        if sum(map(len, self._known)) > _MOST_WORDS:
            for table in self._known:
                table.clear()
        new: dict[str, bytes] = {
            _written(text.words, place): b"" for text in texts for place in text.missing
        }
        pieces = list(new)
        for piece, ids in zip(pieces, self._encode(pieces), strict=True):
            new[piece] = np.array(ids, np.int32).tobytes()
        first, middle, last = self._known
        for text in texts:
            for place in text.missing:
                word = text.words[place]
                text.parts[place] = new[_written(text.words, place)]
                if len(word) <= _LONGEST:
                    ends = place == len(text.words) - 1
                    table = first if place == 0 else last if ends else middle
                    table[word] = text.parts[place]


@dataclass
class _Found:
    """A text's words, the ids of those that are known, and the places of the others."""

    words: list[str]
    parts: list[bytes]
    missing: list[int]


def _written(words: list[str], place: int) -> str:
    """A word as it stands in its text."""
    return f" {words[place]}" if place else words[0]


def _is_safe(words: list[str], place: int) -> bool:
    """Whether the text may be cut in front of the space before a word, and behind the word."""
    word = words[place]
    if place and (not word or word[0].isspace()):
        return False
    ends = place == len(words) - 1
    return ends or (bool(word) and not word[-1].isspace())


def _joined(words: list[str]) -> list[str]:
    """The words with those put together between which no cut is safe: around line ends with
    spaces, or where spaces follow each other."""
    joined = [words[0]]
    for word in words[1:]:
        before = joined[-1]
        if not before or before[-1].isspace() or not word or word[0].isspace():
            joined[-1] = f"{before} {word}"
        else:
            joined.append(word)
    return joined


def may_cut_at_spaces(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of the kind that is explained above."""
    if (tokenizer.get("normalizer") or {}).get("type", "NFC") != "NFC":
        return False
    for added in tokenizer.get("added_tokens") or ():
        if " " in added["content"] or added["lstrip"] or added["rstrip"] or added["single_word"]:
            return False
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("dropout"):
        return False
    if any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")):
        return False
    steps = tokenizer.get("pre_tokenizer") or {}
    listed = steps.get("pretokenizers", [steps])
    return any(map(_cuts_words, listed)) and all(map(_is_harmless, listed))


def _cuts_words(step: Mapping[str, Any]) -> bool:
    """A step that cuts before such spaces."""
    if step.get("type") == "ByteLevel":
        return bool(step.get("use_regex", True))
    return step.get("type") == "Split"


def _is_harmless(step: Mapping[str, Any]) -> bool:
    """A step that cuts words alike wherever they stand."""
    if step.get("type") == "Digits":
        return True
    if step.get("type") == "ByteLevel":
        return not step.get("add_prefix_space", True)
    if step.get("type") != "Split" or step.get("invert") or step.get("behavior") != "Isolated":
        return False
    return step.get("pattern", {}).get("Regex") in _PATTERNS


def word_cache(source: str, encode: Encode) -> WordCache | None:
    """A cache for the tokenizer whose tokenizer.json is `source`, or None."""
    return WordCache(encode) if may_cut_at_spaces(json.loads(source)) else None
