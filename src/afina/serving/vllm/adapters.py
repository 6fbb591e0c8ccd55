"""The adapters that a vLLM server has: loaded when they are first asked for, unloaded when they are
deleted, idle, or more than there should be, never while a request uses one.

An adapter's name there is its tune's hash, so a name never means two things. vLLM forgets all of
them when it starts again: whoever finds one gone says so (`lost`), and it is loaded anew. Used from
the event loop alone. No torch here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from afina.domain.clock import Clock
from afina.errors import AfinaError, BaseRefused, Unavailable
from afina.serving.vllm.folders import AdapterFolders
from afina.serving.vllm.link import Reply, VllmLink
from afina.serving.vllm.wire import Card, message_of

LOAD: Final = "/v1/load_lora_adapter"
UNLOAD: Final = "/v1/unload_lora_adapter"
PREFIX: Final = "afina-"
_LOG = structlog.get_logger(__name__)

InThread = Callable[..., Awaitable[Any]]


def name_of(sha256: str) -> str:
    """What vLLM calls the adapter of that manifest."""
    return PREFIX + sha256


class RemoteAdapters:
    """What vLLM has of ours, least recently used first."""

    def __init__(
        self,
        link: VllmLink,
        folders: AdapterFolders,
        clock: Clock,
        capacity: int,
        in_thread: InThread,
    ) -> None:
        self._link = link
        self._folders = folders
        self._clock = clock
        self._capacity = capacity
        self._in_thread = in_thread
        self._used_at: dict[str, float] = {}
        self._users: Counter[str] = Counter()
        self._doomed: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self.on_load: Callable[[str], object] = str
        """Told the base's id when an adapter was loaded."""

    @property
    def resident(self) -> list[str]:
        """Manifest hashes that vLLM has."""
        return list(self._used_at)

    @asynccontextmanager
    async def using(self, base_id: str, sha256: str) -> AsyncIterator[str]:
        """The adapter's name at vLLM, loaded and kept until the block ends. Raises what `make` of
        the folders raises, BaseRefused where vLLM does not take it, Unavailable."""
        self._users[sha256] += 1
        try:
            async with self._lock(sha256):
                if sha256 not in self._used_at:
                    await self._load(base_id, sha256)
                self._touch(sha256)
            await self._make_room()
            yield name_of(sha256)
        finally:
            self._users[sha256] -= 1
            if self._users[sha256] <= 0:
                del self._users[sha256]
            if sha256 in self._used_at:
                self._touch(sha256)

    def lost(self, sha256: str) -> None:
        """vLLM does not know it (any more): it is loaded when it is next asked for."""
        self._used_at.pop(sha256, None)

    def listed(self, cards: Iterable[Card], asked_at: float) -> None:
        """What vLLM listed when it was asked at that time: what was not there is lost."""
        there = {card.id for card in cards}
        for sha256, at in list(self._used_at.items()):
            if name_of(sha256) not in there and at < asked_at:
                self.lost(sha256)

    async def begin(self, cards: Iterable[Card]) -> None:
        """Unloads what an earlier engine of this data directory left there."""
        for card in cards:
            if card.id.startswith(PREFIX) and self._folders.is_ours(card.root):
                await self._unload(card.id.removeprefix(PREFIX))
        await self._in_thread(self._folders.clear)

    async def forget(self, sha256: str) -> None:
        """The tune is deleted: unloads it as soon as nobody uses it."""
        if sha256 in self._used_at:
            self._doomed.add(sha256)
            await self._drop([sha256])

    async def tidy(self, idle_s: float) -> None:
        """Unloads what nobody has used for `idle_s`, and what is deleted."""
        before = self._clock.monotonic() - idle_s
        await self._drop([s for s, at in self._used_at.items() if at < before or s in self._doomed])

    async def _make_room(self) -> None:
        idle = [s for s in self._used_at if not self._users[s]]
        await self._drop(idle[: max(0, len(self._used_at) - self._capacity)])

    async def _drop(self, wanted: list[str]) -> None:
        for sha256 in wanted:
            async with self._lock(sha256):
                if self._users[sha256] or sha256 not in self._used_at:
                    continue
                try:
                    await self._unload(sha256)
                except AfinaError as error:
                    _LOG.warning("vllm.not_unloaded", tune=sha256[:12], reason=error.message)
                    continue
                self._used_at.pop(sha256, None)
                self._doomed.discard(sha256)
                await self._in_thread(self._folders.remove, sha256)

    async def _load(self, base_id: str, sha256: str) -> None:
        path = await self._in_thread(self._folders.make, base_id, sha256)
        # In place: it may be there already, from a call whose answer was lost, and be in use.
        body = {"lora_name": name_of(sha256), "lora_path": path, "load_inplace": True}
        reply = await self._link.call(LOAD, body)
        if not reply.is_ok:
            await self._in_thread(self._folders.remove, sha256)
            raise _not_loaded(reply)
        self.on_load(base_id)

    async def _unload(self, sha256: str) -> None:
        name = name_of(sha256)
        reply = await self._link.call(UNLOAD, {"lora_name": name})
        if reply.status == 500:
            # vLLM cannot remove what it has put out of its own memory meanwhile: it must have it
            # again first.
            body = {"lora_name": name, "lora_path": self._folders.path(sha256)}
            await self._link.call(LOAD, body | {"load_inplace": True})
            reply = await self._link.call(UNLOAD, {"lora_name": name})
        if not reply.is_ok and reply.status != 404:
            raise Unavailable(f"vLLM did not unload an adapter: {message_of(reply)}.")

    def _touch(self, sha256: str) -> None:
        self._used_at.pop(sha256, None)
        self._used_at[sha256] = self._clock.monotonic()

    def _lock(self, sha256: str) -> asyncio.Lock:
        return self._locks.setdefault(sha256, asyncio.Lock())


def _not_loaded(reply: Reply) -> AfinaError:
    said = message_of(reply)
    if reply.status in {404, 405} and "LoRA" not in said:
        return Unavailable(
            "The vLLM server takes no adapters while it runs.",
            remedy="Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
        )
    if reply.status in {401, 403}:
        return Unavailable(
            "The vLLM server does not take afina's key.",
            remedy="Set AFINA_ENGINE__VLLM__KEY to what it was started with as --api-key.",
        )
    if reply.status == 404:
        return Unavailable(
            f"The vLLM server does not find the adapter's files: {said}.",
            remedy="It must see the folder of AFINA_ENGINE__VLLM__ADAPTERS; where it has another "
            "name there, say so in AFINA_ENGINE__VLLM__ADAPTERS_THERE.",
        )
    return BaseRefused(
        f"The vLLM server does not take this adapter: {said}.",
        param="model",
        remedy="Ranks above vLLM's --max-lora-rank, and layers that it cannot tune, are refused.",
    )
