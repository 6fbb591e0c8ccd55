"""The wire's shapes of chat answers: the whole answer, and the chunks of a stream.

A chunk is written from parts that are encoded once for its stream, because it is written for
every token. The obfuscation of chunks (padding against guesses from their sizes) is added only
where the request asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from afina.domain.ids import Ids
from afina.serving.protocol import Delta, Final, TokenLogprob

_ENCODER = msgspec.json.Encoder()
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class AnswerHead:
    """What every part of one answer says: its id, its time and the model that really ran."""

    id: str
    created: int
    model: str
    fingerprint: str
    n: int = 1
    logprobs: bool = False


@dataclass
class _Choice:
    texts: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: str = "stop"


class WholeAnswer:
    """Collects the deltas of all choices into one `chat.completion`."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._choices = [_Choice() for _ in range(head.n)]

    def add(self, delta: Delta) -> None:
        """Takes one more piece."""
        choice = self._choices[delta.choice]
        if delta.text:
            choice.texts.append(delta.text)
        choice.logprobs.extend(_logprobs(delta.logprobs))
        if delta.finish is not None:
            choice.finish = delta.finish

    def finish(self, final: Final) -> bytes:
        """The answer as JSON."""
        return _ENCODER.encode(
            {
                "id": self._head.id,
                "object": "chat.completion",
                "created": self._head.created,
                "model": self._head.model,
                "choices": [self._choice(i, c) for i, c in enumerate(self._choices)],
                "usage": usage(final),
                "service_tier": "default",
                "system_fingerprint": self._head.fingerprint,
            }
        )

    def _choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        told = {"content": choice.logprobs, "refusal": None} if self._head.logprobs else None
        return {
            "index": index,
            "message": {
                "role": "assistant",
                "content": "".join(choice.texts),
                "refusal": None,
                "annotations": [],
            },
            "logprobs": told,
            "finish_reason": choice.finish,
        }


class Chunks:
    """Writes the chunks of one stream as server-sent events."""

    def __init__(self, head: AnswerHead, include_usage: bool, padding: Ids | None = None) -> None:
        self._head = head
        self._padding = padding
        self._usage = b',"usage":null' if include_usage else b""
        self._open = (
            b'data: {"id":%s,"object":"chat.completion.chunk","created":%d,"model":%s,'
            b'"service_tier":"default","system_fingerprint":%s,"choices":['
            % (
                _ENCODER.encode(head.id),
                head.created,
                _ENCODER.encode(head.model),
                _ENCODER.encode(head.fingerprint),
            )
        )

    def roles(self) -> bytes:
        """The first chunk of every choice: who speaks, and no text yet."""
        return b"".join(
            self._chunk(i, b'{"role":"assistant","content":"","refusal":null}', b"null", b"null")
            for i in range(self._head.n)
        )

    def delta(self, delta: Delta) -> bytes:
        """One more piece of an answer, and its end where it has come; empty if nothing is new."""
        written = b""
        if delta.text or delta.logprobs:
            content = b'{"content":%s}' % _ENCODER.encode(delta.text)
            told = b"null"
            if self._head.logprobs:
                pieces = list(_logprobs(delta.logprobs))
                told = b'{"content":%s,"refusal":null}' % _ENCODER.encode(pieces)
            written = self._chunk(delta.choice, content, told, b"null")
        if delta.finish is not None:
            reason = _ENCODER.encode(delta.finish)
            written += self._chunk(delta.choice, b"{}", b"null", reason)
        return written

    def totals(self, final: Final) -> bytes:
        """The last events: the totals, where they were asked for, and `[DONE]`."""
        if not self._usage:
            return DONE
        return (
            self._open
            + b'],"usage":%s%s}\n\n'
            % (
                _ENCODER.encode(usage(final)),
                self._obfuscation(),
            )
            + DONE
        )

    def _chunk(self, index: int, delta: bytes, logprobs: bytes, finish: bytes) -> bytes:
        return (
            self._open
            + b'{"index":%d,"delta":%s,"logprobs":%s,"finish_reason":%s}]%s%s}\n\n'
            % (
                index,
                delta,
                logprobs,
                finish,
                self._usage,
                self._obfuscation(),
            )
        )

    def _obfuscation(self) -> bytes:
        if self._padding is None:
            return b""
        length = 1 + self._padding.seed() % 16
        return b',"obfuscation":"%s"' % self._padding.new("", length).encode()


def error_event(envelope: dict[str, Any]) -> bytes:
    """The event that ends a stream which broke off; no `[DONE]` follows it."""
    return b"data: %s\n\n" % _ENCODER.encode(envelope)


def usage(final: Final) -> dict[str, Any]:
    """The totals over all choices, as the engine counted them."""
    return {
        "prompt_tokens": final.prompt_tokens,
        "completion_tokens": final.completion_tokens,
        "total_tokens": final.prompt_tokens + final.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": final.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _logprobs(tokens: Iterable[TokenLogprob]) -> Iterable[dict[str, Any]]:
    for token in tokens:
        told = _token(token.bytes, token.logprob)
        told["top_logprobs"] = [_token(top.bytes, top.logprob) for top in token.top]
        yield told


def _token(latin: str, logprob: float) -> dict[str, Any]:
    raw = latin.encode("latin-1")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # Part of a character: its bytes are written out, as the hosted service does.
        text = "".join(f"\\x{byte:02x}" for byte in raw)
    return {"token": text, "logprob": logprob, "bytes": list(raw)}
