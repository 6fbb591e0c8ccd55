"""One answer by vLLM: its chunks into deltas, each request into exactly one last line.

What vLLM sends is never taken on trust: an answer whose choices did not all end as they were asked
to, or whose stream was cut, is a failure, however much text there is. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from afina.errors import EngineFailed
from afina.serving.answers import GeneratedAnswer
from afina.serving.line_stream import LineStream
from afina.serving.protocol import Delta, Generate
from afina.serving.vllm.bases import ServedBase
from afina.serving.vllm.link import VllmLink
from afina.serving.vllm.wire import Chunk, ChunkChoice, broken, chunk, is_greedy

USAGE_S: Final = 0.5
"""How long the count of cached tokens is waited for, once the answer is whole."""
_ENDS: Final = frozenset({"stop", "length"})


class AnswerStream:
    """The lines of one answer."""

    def __init__(
        self, link: VllmLink, stream: LineStream, base: ServedBase, request: Generate
    ) -> None:
        self._link = link
        self._stream = stream
        self._request = request
        self._answer = GeneratedAnswer(request, base.tokenizer)
        self._copies = request.n if is_greedy(request) else 1
        self._open = set(range(request.n))
        """Choices that have not ended."""
        self._ended_there: set[int] = set()
        """Choices that vLLM has ended."""
        self.has_begun = False
        """Whether vLLM has computed anything."""

    @property
    def completion_tokens(self) -> int:
        return self._answer.completion_tokens

    async def deltas(self, send: Callable[[Sequence[Delta]], None]) -> None:
        """Sends deltas as they come; returns when every choice has ended. Raises EngineFailed."""
        while self._open:
            line = await self._link.line(self._stream)
            if line is None or line.strip() == b"data: [DONE]":
                raise EngineFailed(
                    "The vLLM server broke off this answer before its end.", remedy="Ask again."
                )
            found = chunk(line)
            if found is None:
                continue
            if found.error is not None:
                raise broken(found.error, self._request, self.has_begun)
            self.has_begun = True
            deltas = self._taken(found)
            if deltas:
                send(deltas)

    async def cached_tokens(self) -> int:
        """How many tokens of the prompt vLLM found computed; 0 where it does not say, and where
        the answer was ended here."""
        if len(self._ended_there) * self._copies < self._request.n:
            return 0
        while (line := await self._link.line(self._stream, USAGE_S)) is not None:
            found = chunk(line)
            if found is not None and found.usage is not None:
                return min(found.usage.cached_tokens, len(self._request.prompt))
        return 0

    def _taken(self, found: Chunk) -> list[Delta]:
        deltas = []
        for told in found.choices:
            if told.finish_reason is not None:
                self._ended_there.add(told.index)
            for choice in range(told.index, told.index + self._copies):
                deltas += self._of_choice(choice, told)
        return deltas

    def _of_choice(self, choice: int, told: ChunkChoice) -> list[Delta]:
        deltas: list[Delta] = []
        candidates = told.candidates(self._request.logprobs)
        for token, candidate in zip(told.token_ids or (), candidates, strict=True):
            if choice not in self._open:
                return deltas  # it met a stop string here; what vLLM goes on to say is nobody's
            delta = self._answer.take(choice, token, candidate)
            if delta is not None:
                deltas.append(delta)
                if delta.finish is not None:
                    self._open.discard(choice)
        if told.finish_reason is not None and choice in self._open:
            deltas.append(self._ended_by_itself(choice, told.finish_reason))
        return deltas

    def _ended_by_itself(self, choice: int, reason: str) -> Delta:
        """vLLM has ended a choice that should go on. Only a grammar that is complete does that."""
        if reason != "stop" or self._request.grammar is None:
            raise EngineFailed(
                f"The vLLM server ended this answer early ({reason}).", remedy="Ask again."
            )
        self._open.discard(choice)
        return self._answer.end(choice)
