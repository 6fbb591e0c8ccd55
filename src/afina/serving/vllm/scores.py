"""Log-probabilities of forced ids by vLLM, on the path that it answers by.

vLLM could tell them of a prompt, but its server ends where a prompt is asked so beside a tune (seen
in 0.32 for CPUs). So it is let to go on greedily: as long as it says what is forced, each step is a
place; where it would say another token its candidates there are kept, and it starts again behind
the forced one. No torch here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from afina.errors import EngineFailed
from afina.serving.answers import Candidates
from afina.serving.line_stream import LineStream
from afina.serving.protocol import Generate, Score, Scored
from afina.serving.vllm.link import VllmLink
from afina.serving.vllm.wire import broken, chunk

PART: Final = 32
"""Forced ids that are walked one after the other; longer ones are walked in parts at once."""
AT_ONCE: Final = 8

Opened = AbstractAsyncContextManager[LineStream]
Open = Callable[[Generate, int | None], Opened]
"""Opens the stream that answers a request, with the one token that it may say, if only one."""


async def score(request: Score, link: VllmLink, open_stream: Open) -> Scored:
    """The scores of `request`. Raises what vLLM refuses, and EngineFailed where it breaks off."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def part(begin: int) -> list[Candidates]:
        async with turns:
            return await _Walk(request, link, open_stream, begin).whole()

    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(at)) for at in range(0, len(request.ids), PART)]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None  # the others were taken back for it
    places = [place for done in parts for place in done.result()]
    return Scored(
        logprobs=[place.chosen for place in places],
        top_ids=[place.ids for place in places],
        top_logprobs=[place.logprobs for place in places],
    )


class _Walk:
    """One part of the forced ids, from `begin` on."""

    def __init__(self, request: Score, link: VllmLink, open_stream: Open, begin: int) -> None:
        self._request = request
        self._link = link
        self._open = open_stream
        self._at = begin
        self._end = min(begin + PART, len(request.ids))
        self._found: list[Candidates] = []

    async def whole(self) -> list[Candidates]:
        """The candidates of each place, `chosen` being the forced one's log-probability."""
        while self._at < self._end:
            await self._stretch()
        return self._found

    async def _stretch(self) -> None:
        """As far as vLLM says what is forced, and one place more."""
        async with self._open(self._asked(self._end - self._at), None) as stream:
            while self._at < self._end:
                for token, place in await self._next(stream):
                    if not await self._take(token, place):
                        return

    async def _take(self, token: int, place: Candidates) -> bool:
        forced = self._request.ids[self._at]
        chosen = place.chosen
        if token != forced:
            listed = dict(zip(place.ids, place.logprobs, strict=True))
            chosen = listed[forced] if forced in listed else await self._unlisted(forced)
        self._found.append(Candidates(chosen, place.ids, place.logprobs))
        self._at += 1
        return token == forced

    async def _unlisted(self, forced: int) -> float:
        """The log-probability of a token that is not among the best."""
        async with self._open(self._asked(1), forced) as stream:
            ((token, place), *_) = await self._next(stream)
        if token != forced:
            raise EngineFailed("The vLLM server did not say the token that it was given.")
        return place.chosen

    def _asked(self, tokens: int) -> Generate:
        request = self._request
        return Generate(
            request_id=request.request_id,
            base=request.base,
            prompt=[*request.prompt, *request.ids[: self._at]],
            max_tokens=tokens,
            seed=0,
            adapter=request.adapter,
            temperature=0.0,
            logprobs=request.top,
            background=request.background,
        )

    async def _next(self, stream: LineStream) -> list[tuple[int, Candidates]]:
        """The tokens of the next chunk that has any."""
        while (line := await self._link.line(stream)) is not None:
            found = chunk(line)
            if found is None:
                continue
            if found.error is not None:
                raise broken(found.error, self._asked(1), begun=False)
            for choice in found.choices:
                told = choice.candidates(self._request.top)
                tokens = choice.token_ids or []
                if tokens:
                    return [(t, p) for t, p in zip(tokens, told, strict=True) if p is not None]
        raise EngineFailed("The vLLM server broke off a score before its end.", remedy="Ask again.")
