"""The wire's shapes of chat answers: the whole answer, and the chunks of a stream.

A chunk is written from parts that are encoded once for its stream, because it is written for
every token. The obfuscation of chunks (padding against guesses from their sizes) is added only
where the request asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from afina.domain.ids import SYSTEM_IDS, Ids
from afina.service.told import CallBegun, ChoiceReader, Event, Said, WholeChoice
from afina.serving.protocol import Delta, Final, TokenLogprob
from afina.text.calls import CallSyntax

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
    syntax: CallSyntax | None = None
    """How calls are written; None where none may be made."""
    functions: bool = False
    """Whether calls are told in the older way, as one `function_call`."""
    metadata: dict[str, str] | None = None
    source: Ids = SYSTEM_IDS
    """Of the ids of calls."""


class _Choice:
    def __init__(self, head: AnswerHead) -> None:
        self.reader = ChoiceReader(head.syntax)
        self.told = WholeChoice(head.source)
        self.logprobs: list[dict[str, Any]] = []
        self.finish = "stop"

    def take(self, delta: Delta) -> list[Event]:
        """Keeps what a piece tells, and tells it."""
        events = self.reader.take(delta)
        for event in events:
            self.told.add(event)
        self.logprobs.extend(_logprobs(delta.logprobs))
        if delta.finish is not None:
            self.finish = self.reader.reason(delta.finish)
        return events


class WholeAnswer:
    """Collects the deltas of all choices into one `chat.completion`."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self.choices = [_Choice(head) for _ in range(head.n)]

    def add(self, delta: Delta) -> None:
        """Takes one more piece."""
        self.choices[delta.choice].take(delta)

    def finish(self, final: Final) -> bytes:
        """The answer as JSON."""
        return _ENCODER.encode(self.document(final))

    def document(self, final: Final) -> dict[str, Any]:
        """The answer as plain values."""
        answer: dict[str, Any] = {
            "id": self._head.id,
            "object": "chat.completion",
            "created": self._head.created,
            "model": self._head.model,
            "choices": [self._choice(i, c) for i, c in enumerate(self.choices)],
            "usage": usage(final),
            "service_tier": "default",
            "system_fingerprint": self._head.fingerprint,
        }
        if self._head.metadata is not None:
            answer["metadata"] = self._head.metadata
        return answer

    def _choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        told = {"content": choice.logprobs, "refusal": None} if self._head.logprobs else None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.told.text if choice.told.text or not choice.told.calls else None,
            "refusal": None,
            "annotations": [],
        }
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.told.calls
        ]
        if calls and self._head.functions:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "logprobs": told,
            "finish_reason": _reason(self._head, choice.finish),
        }


class Chunks:
    """Writes the chunks of one stream as server-sent events."""

    def __init__(
        self,
        head: AnswerHead,
        include_usage: bool,
        padding: Ids | None = None,
        *,
        kept: bool = False,
    ) -> None:
        self._head = head
        self.whole = WholeAnswer(head)
        """What the chunks tell, together; kept only where calls or a copy need it."""
        self._plain = head.syntax is None and not kept
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
        told = b"null"
        if self._head.logprobs and delta.logprobs:
            told = b'{"content":%s,"refusal":null}' % _ENCODER.encode(
                list(_logprobs(delta.logprobs))
            )
        written = b""
        for content in self._contents(delta):
            written += self._chunk(delta.choice, content, told, b"null")
            told = b"null"
        if delta.finish is not None:
            finish = delta.finish if self._plain else self.whole.choices[delta.choice].finish
            reason = _ENCODER.encode(_reason(self._head, finish))
            written += self._chunk(delta.choice, b"{}", b"null", reason)
        return written

    def _contents(self, delta: Delta) -> list[bytes]:
        """The deltas that one piece makes."""
        if self._plain:
            events: list[Event] = [Said(delta.text)] if delta.text or delta.logprobs else []
        else:
            events = self.whole.choices[delta.choice].take(delta)
            if not events and self._head.logprobs and delta.logprobs:
                events = [Said("")]
        return [self._content(delta.choice, event) for event in events]

    def _content(self, choice: int, event: Event) -> bytes:
        if isinstance(event, Said):
            return b'{"content":%s}' % _ENCODER.encode(event.text)
        if isinstance(event, CallBegun):
            function = {"name": event.name, "arguments": ""}
        else:
            function = {"arguments": event.text}
        if self._head.functions:
            return _ENCODER.encode({"function_call": function})
        call: dict[str, Any] = {"index": event.index}
        if isinstance(event, CallBegun):
            call |= {"id": self.whole.choices[choice].told.calls[event.index].id}
            call |= {"type": "function"}
        return _ENCODER.encode({"tool_calls": [call | {"function": function}]})

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


def _reason(head: AnswerHead, finish: str) -> str:
    return "function_call" if head.functions and finish == "tool_calls" else finish


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


def told_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities as the wire shows them."""
    return list(_logprobs(tokens))


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
