"""A model's own tokenizer, by the `tokenizers` package alone.

Two ways in: `encode` takes what people wrote and never makes a control token of it;
`encode_template` takes what a template wrote and does. A *control token* is an added token that
the model reads as structure: all that tokenizer.json calls special, and those that the template
opens and closes turns with. Nothing here renders; see `afina.text.renderer`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from afina.errors import BaseRefused
from afina.text.words import WordCache, word_cache

SEPARATOR: Final = "\ufdd0afina\ufdd0"
"""Stands in front of a piece of text that is not the first of its text (see `encode_piece`)."""
_SPACE: Final = r"\s*"


@dataclass(frozen=True)
class AddedPiece:
    """An added token: what it looks like and how it is found in text."""

    id: int
    text: str
    special: bool
    lstrip: bool
    rstrip: bool


class ChatTokenizer:
    """The tokenizer of a model folder."""

    def __init__(self, source: str, control_extra: frozenset[str] = frozenset()) -> None:
        self.source = source
        """tokenizer.json, with the added tokens that the folder lists elsewhere."""
        self._whole = _from_json(source)
        self.added = tuple(_added_pieces(self._whole))
        self.control = tuple(
            piece for piece in self.added if piece.special or piece.text in control_extra
        )
        self.control_ids = frozenset(piece.id for piece in self.control)
        self.control_pattern = _control_pattern(self.control)
        self._first_characters = tuple({piece.text[0] for piece in self.control})

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """The tokenizer in `folder`. Raises BaseRefused where there is none or it is damaged."""
        path = folder / "tokenizer.json"
        try:
            source = path.read_text(encoding="utf-8")
            missing = _missing_added_tokens(folder / "tokenizer_config.json", source)
            if missing:
                tokenizer = _from_json(source)
                tokenizer.add_tokens(missing)
                source = tokenizer.to_str()
            return cls(source)
        except FileNotFoundError:
            raise BaseRefused(
                f"{folder} has no tokenizer.json.",
                remedy="Write one with transformers: AutoTokenizer.from_pretrained(…)"
                ".save_pretrained(folder).",
            ) from None
        except (OSError, ValueError) as error:
            raise BaseRefused(
                f"{path} cannot be read: {error}.", remedy="Pull the model again."
            ) from None

    def with_control(self, texts: Iterable[str]) -> ChatTokenizer:
        """The same tokenizer where the added tokens `texts` are control tokens too."""
        extra = frozenset(texts) - {piece.text for piece in self.control}
        return ChatTokenizer(self.source, extra) if extra else self

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return int(self._whole.get_vocab_size(with_added_tokens=True))

    @functools.cached_property
    def sha256(self) -> str:
        """A hash of everything that decides the ids of a text."""
        control = "\0".join(sorted(piece.text for piece in self.control))
        return hashlib.sha256(f"{self.source}\0{control}".encode()).hexdigest()

    @functools.cached_property
    def opening_ids(self) -> tuple[int, ...]:
        """What the model's makers put before a text that stands alone: mostly nothing, or one id
        that marks the beginning."""
        plain = self._whole.encode("a", add_special_tokens=False).ids
        whole = self._whole.encode("a", add_special_tokens=True).ids
        for count in range(len(whole) - len(plain) + 1):
            if whole[count : count + len(plain)] == plain:
                return tuple(whole[:count])
        return ()

    def token_id(self, text: str) -> int | None:
        """The id of one token's text, None where there is no such token."""
        found = self._whole.token_to_id(text)
        return None if found is None else int(found)

    def has_control(self, text: str) -> bool:
        """Whether `text` holds what would be read as a control token."""
        for first in self._first_characters:
            if first in text:
                return self.control_pattern.search(text) is not None
        return False

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: what looks like a control token stays text."""
        tokenizer = self._plain if self.has_control(text) else self._whole
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_piece(self, text: str) -> list[int]:
        """Ids of plain text that continues another: no space or mark of a beginning is put in
        front, as some tokenizers do. A separator token in front, cut off again, sees to that."""
        ids = self._plain.encode(SEPARATOR + text, add_special_tokens=False).ids
        return list(ids[1:])

    def encode_template(self, text: str) -> list[int]:
        """Ids of text that a template wrote: control tokens are parsed."""
        return list(self._whole.encode(text, add_special_tokens=False).ids)

    def encode_templates(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """`encode_template` of many texts: from a cache of words where the tokenizer allows it,
        else on all the threads that `tokenizers` may use."""
        if self._words is not None and len(texts) > 1:
            return self._words.encode_many(texts)
        return [np.array(ids, np.int32) for ids in self._encode_batch(texts)]

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._whole.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    @functools.cached_property
    def _words(self) -> WordCache | None:
        return word_cache(self.source, self._encode_batch)

    def decode(self, ids: Sequence[int], skip_control: bool = True) -> str:
        """The text of `ids`, control tokens left out."""
        kept = [i for i in ids if i not in self.control_ids] if skip_control else list(ids)
        return str(self._whole.decode(kept, skip_special_tokens=False))

    @functools.cached_property
    def _decoders(self) -> tuple[str, ...]:
        """The kinds of tokenizer.json's decoder, one after the other."""
        decoder = json.loads(self.source).get("decoder") or {}
        parts = decoder.get("decoders", [decoder]) if decoder else []
        return tuple(part["type"] for part in parts)

    @functools.cached_property
    def is_byte_level(self) -> bool:
        """Whether every token is a run of bytes, in the alphabet of GPT-2."""
        return self._decoders == ("ByteLevel",)

    @functools.cached_property
    def longest_token(self) -> int:
        """No token stands for more characters than this, where tokens are bytes."""
        return max(map(len, self._whole.get_vocab(with_added_tokens=True)))

    @functools.cached_property
    def joins_bytes(self) -> bool:
        """Whether a text is its tokens' bytes, one after the other."""
        fallback = "ByteFallback" in self._decoders and not (
            set(self._decoders) - {"Replace", "ByteFallback", "Fuse", "Strip"}
        )
        return self.is_byte_level or fallback

    @functools.cached_property
    def strips_first_space(self) -> bool:
        """Whether a text loses the space that its first token begins with."""
        return not self.is_byte_level and "Strip" in self._decoders

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, perhaps part of a character."""
        text = self._whole.id_to_token(token)
        if text is None:
            return b""
        if self.is_byte_level:
            return _byte_level(text)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", text):
            return bytes([int(text[3:5], 16)])
        return str(text).replace("\u2581", " ").encode("utf-8", "surrogatepass")

    @functools.cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without its control tokens, and with the separator. Made when first
        needed: most texts hold nothing that looks like one."""
        data = json.loads(self.source)
        control = {piece.text for piece in self.control}
        data["added_tokens"] = [
            entry for entry in data.get("added_tokens", []) if entry["content"] not in control
        ]
        data["post_processor"] = None
        plain = _from_json(json.dumps(data))
        plain.add_special_tokens([AddedToken(SEPARATOR, normalized=False, special=True)])
        return plain


def _from_json(source: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(source)
    except Exception as error:  # noqa: BLE001  (the package raises bare Exception)
        raise ValueError(f"not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _added_pieces(tokenizer: Tokenizer) -> Iterable[AddedPiece]:
    for id, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        if token.content:
            yield AddedPiece(id, token.content, token.special, token.lstrip, token.rstrip)


def _control_pattern(pieces: Iterable[AddedPiece]) -> re.Pattern[str]:
    """Finds control tokens, the longest first. A token that takes the white space beside it, as
    some do, takes it here too."""
    branches = [
        (_SPACE if piece.lstrip else "") + re.escape(piece.text) + (_SPACE if piece.rstrip else "")
        for piece in sorted(pieces, key=lambda piece: len(piece.text), reverse=True)
    ]
    return re.compile("|".join(branches) or "(?!)")


def _missing_added_tokens(config: Path, source: str) -> list[AddedToken]:
    """Added tokens that tokenizer_config.json lists and tokenizer.json lacks, in their order."""
    try:
        listed = json.loads(config.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
    except FileNotFoundError:
        return []
    known = {entry["content"] for entry in json.loads(source).get("added_tokens", [])}
    missing = []
    for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        if entry["content"] not in known:
            flags: dict[str, Any] = {
                key: entry[key]
                for key in ("single_word", "lstrip", "rstrip", "normalized", "special")
                if key in entry
            }
            missing.append(AddedToken(entry["content"], **flags))
    return missing


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    """The table of byte-level tokenizers: printable bytes stand for themselves, the rest follow
    from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _byte_level(text: str) -> bytes:
    table = _bytes_of_characters()
    try:
        return bytes(table[character] for character in text)
    except KeyError:  # an added token, written as itself
        return text.encode("utf-8", "surrogatepass")
