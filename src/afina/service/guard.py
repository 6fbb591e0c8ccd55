"""The engine behind its guard: rate limits and budgets, for whatever asks it for an answer.

Every request carries in its tag who asks; so one guard serves chats, completions, responses and
whatever comes later.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from afina.domain.accounts import Caller
from afina.service.budgets import check_budget
from afina.service.lately import Lately
from afina.service.limits import RateLimiter, reserve
from afina.service.platform import Platform
from afina.serving.protocol import Delta, Final, Generate


class Generator(Protocol):
    """What is guarded."""

    def generate(self, request: Generate) -> AsyncIterator[Delta | Final]: ...


class GuardedEngine:
    """Lets a request through to the engine when its project may ask and can pay. Without a limiter
    only the budget counts: batches wait for no rate."""

    def __init__(
        self, platform: Platform, engine: Generator, limiter: RateLimiter | None = None
    ) -> None:
        self._platform = platform
        self._engine = engine
        self._limiter = limiter
        self._paid: Lately[tuple[str, str], None] = Lately(self._check_budget, platform.clock)

    async def generate(self, request: Generate) -> AsyncGenerator[Delta | Final, None]:
        """As the engine's. Raises QuotaExceeded, RequestsLimited and TokensLimited before the
        engine has seen anything."""
        project = request.tag.get("project", request.namespace)
        await self._paid.get((project, request.tag.get("organization", "")))
        reserved = reserve(len(request.prompt), request.max_tokens * request.n)
        if self._limiter is not None:
            await self._limiter.know(project)
            self._limiter.admit(project, request.base, reserved, request.request_id)
        used = reserved
        lines = self._engine.generate(request)
        try:
            async for line in lines:
                if isinstance(line, Final):
                    used = line.prompt_tokens + line.completion_tokens
                yield line
        finally:
            if self._limiter is not None:
                self._limiter.settle(project, request.base, reserved, used)
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()

    def _check_budget(self, who: tuple[str, str]) -> None:
        check_budget(self._platform, Caller(who[0], "", who[1]))
