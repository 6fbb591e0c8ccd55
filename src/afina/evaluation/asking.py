"""Puts many questions to the engine at once, and takes what was answered when time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from afina.errors import EngineFailed, Overloaded, Unavailable
from afina.serving.protocol import Delta, Generate
from afina.serving.protocol import Final as Last

TRIES: Final = 20
PAUSE_S: Final = 0.5


class Engine(Protocol):
    """What is needed of the engine's client."""

    def generate(self, request: Generate) -> AsyncIterator[Delta | Last]: ...


@dataclass(frozen=True)
class Answer:
    """What a model said, and the tokens of it."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """How questions are put: how many at once, until when, and who may stop it."""

    at_once: int
    until: float
    """By `now`; questions that have not begun by then are not asked."""
    now: Callable[[], float]
    check: Callable[[], None]
    """Raises when the work is no longer wanted."""


def ask(engine: Engine, requests: Sequence[Generate], how: Round) -> list[Answer | None]:
    """The answers in order; None for a question that there was no time for. Raises what `check`
    raises, and Unavailable where the engine stays away."""
    return asyncio.run(_ask(engine, requests, how))


async def _ask(engine: Engine, requests: Sequence[Generate], how: Round) -> list[Answer | None]:
    gate = asyncio.Semaphore(how.at_once)

    async def one(request: Generate) -> Answer | None:
        async with gate:
            for attempt in range(TRIES):
                how.check()
                if how.now() >= how.until:
                    return None
                try:
                    return await _answer(engine, request)
                except (Unavailable, Overloaded, EngineFailed):
                    if attempt == TRIES - 1:
                        raise
                    await asyncio.sleep(PAUSE_S)
            return None

    tasks = [asyncio.ensure_future(one(request)) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _answer(engine: Engine, request: Generate) -> Answer:
    text, ids = "", []
    stream: Any = engine.generate(request)
    async with aclosing(stream) as lines:
        async for line in lines:
            if isinstance(line, Delta):
                text += line.text
                ids += line.ids
    return Answer(text, tuple(ids))
