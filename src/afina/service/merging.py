"""Several streams as one, in the order in which their items come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merged(
    sources: Sequence[AsyncGenerator[T]], at_once: int
) -> AsyncGenerator[tuple[int, T]]:
    """Items of all sources with the number of theirs; `at_once` run together. The first error of
    any is raised, and leaving early closes all."""
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue()
    places = asyncio.Semaphore(at_once)

    async def drain(number: int, source: AsyncGenerator[T]) -> None:
        try:
            async with places, aclosing(source):
                async for item in source:
                    queue.put_nowait((number, item))
        except Exception as error:  # noqa: BLE001 - raised where the items are taken
            queue.put_nowait(error)
        else:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(drain(n, source)) for n, source in enumerate(sources)]
    try:
        left = len(tasks)
        while left:
            found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in sources:
            await source.aclose()
