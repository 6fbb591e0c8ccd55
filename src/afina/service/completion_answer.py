"""The wire's shapes of plain completions: the whole answer, and the chunks of a stream."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from afina.domain.ids import Ids
from afina.service.chat_answer import DONE, usage
from afina.serving.protocol import Delta, Final

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class CompletionHead:
    """What every part of one answer says."""

    id: str
    created: int
    model: str
    fingerprint: str


class Places:
    """Where each token begins in the text that the bytes of all of them make, in characters. Bytes
    that are no text count as what stands for them there."""

    def __init__(self, whole: int = 0) -> None:
        self._whole = whole
        self._open = b""
        """The beginning of a character whose end has not come yet."""

    def add(self, token: bytes) -> int:
        """Where the next token begins; one that goes on with a character: where that begins."""
        place = self._whole
        if token and not self._goes_on(token[:1]):
            place += len(self._open.decode(errors="replace"))
        decoder = _decoder()
        self._whole += len(decoder.decode(self._open + token))
        self._open = decoder.getstate()[0]
        return place

    def _goes_on(self, first: bytes) -> bool:
        """Whether a byte belongs to the character that is open."""
        decoder = _decoder()
        decoder.decode(self._open)
        made = decoder.decode(first)
        return not made or (len(made) == 1 and not decoder.getstate()[0])


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


@dataclass
class _Told:
    """Log-probabilities in the legacy shape: lists side by side."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def add(
        self, token: bytes, logprob: float | None, top: dict[bytes, float], offset: int
    ) -> None:
        """Adds a token that begins after `offset` characters."""
        text = _shown(token)
        best = {_shown(candidate): value for candidate, value in top.items()}
        if logprob is not None:
            best.setdefault(text, logprob)
        self.tokens.append(text)
        self.token_logprobs.append(logprob)
        self.top_logprobs.append(None if logprob is None else best)
        self.text_offset.append(offset)


class Read(NamedTuple):
    """A token of a prompt, and what is known of it."""

    raw: bytes
    logprob: float | None
    top: dict[bytes, float]
    is_text: bool = True
    """Control tokens are no part of the text that `echo` gives back."""


@dataclass(frozen=True)
class Piece:
    """More of one choice."""

    text: str
    logprobs: dict[str, Any] | None
    finish: str | None


class CompletionChoice:
    """One choice as it grows."""

    def __init__(self, logprobs: int | None, *, hidden: bool = False) -> None:
        self._wants = logprobs is not None
        self._hidden = hidden
        self._text = ""
        self._told = _Told()
        self._finish = "stop"
        self._places = Places()
        self._sum = 0.0
        self._count = 0
        self._unsent: Piece | None = None

    @property
    def mean_logprob(self) -> float:
        """Of the tokens that were written; the emptiest answer is the last choice."""
        return self._sum / self._count if self._count else -math.inf

    def begin(self, prompt: str, tokens: Sequence[Read]) -> None:
        """Puts the prompt in front, with what is known of its tokens."""
        told = _Told()
        for token in tokens:
            place = self._places.add(token.raw if token.is_text else b"")
            told.add(token.raw, token.logprob, token.top, place)
        self._places = Places(len(prompt))
        self._text = prompt
        self._extend(told)
        self._unsent = Piece(prompt, self._shape(told), None)

    def take(self, delta: Delta) -> Piece | None:
        """More of the choice; what is new of it for a stream, None where nothing is."""
        told = _Told()
        for token in delta.logprobs:
            self._sum += token.logprob
            self._count += 1
            top = {t.bytes.encode("latin-1"): t.logprob for t in token.top}
            raw = token.bytes.encode("latin-1")
            told.add(raw, token.logprob, top, self._places.add(raw))
        text = "" if self._hidden else delta.text
        finish = "length" if self._hidden and delta.finish else delta.finish
        if self._hidden:
            told = _Told()
        self._text += text
        self._extend(told)
        if finish is not None:
            self._finish = finish
        before, self._unsent = self._unsent, None
        if before is not None:
            text = before.text + text
            told = self._told
        if not (text or told.tokens or finish):
            return None
        return Piece(text, self._shape(told), finish)

    def document(self, index: int) -> dict[str, Any]:
        """The whole choice."""
        return _choice(index, Piece(self._text, self._shape(self._told), self._finish))

    def _extend(self, told: _Told) -> None:
        self._told.tokens += told.tokens
        self._told.token_logprobs += told.token_logprobs
        self._told.top_logprobs += told.top_logprobs
        self._told.text_offset += told.text_offset

    def _shape(self, told: _Told) -> dict[str, Any] | None:
        if not self._wants:
            return None
        return {
            "tokens": list(told.tokens),
            "token_logprobs": list(told.token_logprobs),
            "top_logprobs": list(told.top_logprobs),
            "text_offset": list(told.text_offset),
        }


def document(
    head: CompletionHead, choices: Sequence[CompletionChoice], finals: Sequence[Final]
) -> bytes:
    """The whole answer as JSON."""
    shown = [choice.document(index) for index, choice in enumerate(choices)]
    return _ENCODER.encode({**_head(head), "choices": shown, "usage": usage(_sum(finals))})


def chunk(
    head: CompletionHead, index: int, piece: Piece, *, usage: bool, padding: Ids | None
) -> bytes:
    """More of one choice as a server-sent event."""
    shown = {**_head(head), "choices": [_choice(index, piece)]}
    if usage:
        shown["usage"] = None
    return _event(shown, padding)


def totals(head: CompletionHead, finals: Sequence[Final], told: bool, padding: Ids | None) -> bytes:
    """The last events: the totals, where they were asked for, and `[DONE]`."""
    if not told:
        return DONE
    shown = {**_head(head), "choices": [], "usage": usage(_sum(finals))}
    return _event(shown, padding) + DONE


def _event(shown: dict[str, Any], padding: Ids | None) -> bytes:
    if padding is not None:
        shown["obfuscation"] = padding.new("", 1 + padding.seed() % 16)
    return b"data: %s\n\n" % _ENCODER.encode(shown)


def _head(head: CompletionHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
    }


def _choice(index: int, piece: Piece) -> dict[str, Any]:
    return {
        "text": piece.text,
        "index": index,
        "logprobs": piece.logprobs,
        "finish_reason": piece.finish,
    }


def _sum(finals: Sequence[Final]) -> Final:
    return Final(
        sum(final.prompt_tokens for final in finals),
        sum(final.cached_tokens for final in finals),
        sum(final.completion_tokens for final in finals),
    )


def _shown(token: bytes) -> str:
    """A token's text; part of a character shows its bytes, as the hosted service does."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
