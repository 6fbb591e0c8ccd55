"""What the engine holds in memory: bases, tunes with weights of their own, adapters, drafts.

Lives on the event loop. What is not there is loaded on one loader thread, once for all who wait for
it; what a request uses stays until it leaves. A base that finds too little free memory sends away
those that nobody uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import torch

from afina.domain.manifests import TuneKind
from afina.errors import Overloaded
from afina.inside_settings import EngineSettings
from afina.serving.adapters import Adapter
from afina.serving.bases import Bases
from afina.serving.drafts import DraftIndex
from afina.serving.engine import Engine
from afina.serving.lane import Lane, Ticket
from afina.serving.library import OWN_KINDS, Library
from afina.serving.memory import free_bytes, give_back
from afina.serving.own_lanes import OwnLane, OwnLanes
from afina.serving.residency import Residency

_LOG = structlog.get_logger(__name__)


@dataclass
class Held:
    """What one request keeps in memory."""

    base: str | None = None
    adapter: str | None = None
    own: str | None = None
    """A tune with weights of its own."""


class Holdings:
    """The lanes of one engine and what they answer with."""

    def __init__(self, settings: EngineSettings, library: Library, engine: Engine) -> None:
        self._settings, self._library, self._engine = settings, library, engine
        self._loop = asyncio.get_running_loop()
        # One thread's worth: threads of its own would make OpenMP count more threads than cores,
        # and let those of the step loop sleep between products.
        self.loader = ThreadPoolExecutor(1, "loader", torch.set_num_threads, (1,))
        self._loading: dict[str, asyncio.Future[Any]] = {}
        self._residency = Residency(settings.adapters_resident)
        self._bases = Bases()
        self._entrance = asyncio.Lock()
        """Bases come in one after another: each is weighed against what those before it left."""
        self._own = OwnLanes(settings.own_weights_mb * 1_000_000)
        self._kinds: dict[str, TuneKind] = {}
        self._drafted: set[str] = set()
        """Tunes in memory whose drafts were looked for."""

    @property
    def bases(self) -> list[str]:
        """Bases in memory."""
        return self._bases.resident

    @property
    def tunes(self) -> list[str]:
        """Tunes in memory."""
        found = list(self._own.resident)
        for lane in self.lanes:
            found += lane.runner.bank.resident
        return found

    @property
    def lanes(self) -> list[Lane]:
        """All of them."""
        return [*self._bases.lanes(), *self._own.lanes()]

    def tidy(self, idle_s: float) -> None:
        """Lets go of adapters that nobody used for so long."""
        for lane in self._bases.lanes():
            self._engine.call(partial(lane.tidy, idle_s))

    def leave(self, held: Held) -> None:
        """A request has ended."""
        if held.base is not None:
            self._bases.leave(held.base)
        if held.adapter is not None:
            self._residency.leave(held.adapter)
        if held.own is not None:
            self._remove_own(self._own.leave(held.own))

    async def lane(self, base_id: str) -> Lane:
        """A base's, loaded if it must be. Raises Overloaded where there is no memory for it and
        requests use all others."""
        found = self._bases.find(base_id)
        if found is not None:
            return found
        async with self._entrance:
            found = self._bases.find(base_id)
            if found is not None:
                return found
            if base_id not in self._loading:
                await self._make_room(base_id)
            lane: Lane = await self.once(
                base_id, lambda: self._library.load_lane(base_id, self._residency.is_alive)
            )
            self._bases.add(base_id, lane)
            self._engine.call(partial(self._engine.add_lane, base_id, lane))
            return lane

    async def _make_room(self, base_id: str) -> None:
        """Sends idle bases away until this one can be loaded, which takes its size twice."""
        size: int = await self.once(f"size {base_id}", lambda: self._library.size_of(base_id))
        while free_bytes() < 2 * size:
            idle = self._bases.take_idle()
            if idle is None:
                break
            await self._send_away(idle)
        free = free_bytes()
        if free < size and self._bases.resident:
            raise Overloaded(
                f"The base model {base_id!r} takes {size / 1e9:.1f} GB of memory, {free / 1e9:.1f} "
                "GB are free, and requests use all bases that are loaded.",
                remedy="Ask again when they have been answered.",
                retry_after_s=5.0,
            )

    async def _send_away(self, base_id: str) -> None:
        """Lets go of an idle base and of its tunes; returns when their memory is free."""
        for tune in self._own.of_base(base_id):
            self._remove_own(self._own.forget(tune))
        gone = self._loop.create_future()

        def tell() -> None:
            if not gone.done():
                gone.set_result(None)

        def remove() -> None:
            self._engine.remove_lane(base_id)
            self._loop.call_soon_threadsafe(tell)

        self._engine.call(remove)
        await gone
        await self._loop.run_in_executor(self.loader, give_back)
        _LOG.info("engine.base_sent_away", base=base_id)

    async def lane_of(self, held: Held, base_id: str, tune: str | None) -> Lane:
        """The base's lane, or that of a tune with weights of its own."""
        self._bases.enter(base_id)
        held.base = base_id
        lane = await self.lane(base_id)
        if tune is None or await self._kind(tune) not in OWN_KINDS:
            return lane
        self._own.enter(tune)
        held.own = tune
        found = self._own.find(tune)
        if found is not None:
            self._draft(found, tune)
            return found
        own: OwnLane = await self.once(tune, lambda: self._library.load_own(lane, tune))
        if self._own.find(tune) is None:
            self._remove_own(self._own.make_room(own.size))
            self._own.add(tune, own)
            self._engine.call(partial(self._engine.add_lane, tune, own.lane))
            self._drafted.discard(tune)
        return own.lane

    async def _kind(self, tune: str) -> TuneKind:
        if tune not in self._kinds:
            kind = await self.once(f"kind {tune}", lambda: self._library.manifest(tune).kind)
            self._kinds[tune] = kind
        return self._kinds[tune]

    def _remove_own(self, tunes: list[str]) -> None:
        if not tunes:
            return
        for tune in tunes:
            self._engine.call(partial(self._engine.remove_lane, tune))
        # behind the removal, and not in the step loop's thread
        self._engine.call(partial(self.loader.submit, give_back))

    async def take_tune(self, held: Held, lane: Lane, ticket: Ticket) -> None:
        """Sees that what a ticket's adapter is made of is in memory; a lane's own weights are."""
        if lane.tune is not None:
            ticket.prompt.adapter = None
            return
        adapter = ticket.prompt.adapter
        if adapter is not None:
            ticket.adapter = await self._adapter(held, lane, adapter)

    async def _adapter(self, held: Held, lane: Lane, sha256: str) -> Adapter:
        await self._residency.enter(sha256)
        held.adapter = sha256
        found = lane.runner.bank.find(sha256)
        if found is not None:
            self._draft(lane, sha256)
            return found
        loaded: Adapter = await self.once(
            f"{lane.base_id} {sha256}", lambda: self._library.load_adapter(lane, sha256)
        )
        self._drafted.discard(sha256)
        return loaded

    def _draft(self, lane: Lane, tune: str) -> None:
        """Has a tune's answers drafted from now on. Called for a tune that is in memory already, so
        that rare ones cost nothing; nobody waits for it."""
        if not self._settings.speculation or tune in self._drafted:
            return
        self._drafted.add(tune)
        making = asyncio.ensure_future(
            self.once(f"drafts {tune}", lambda: self._library.drafts(tune))
        )

        def made(done: asyncio.Future[DraftIndex | None]) -> None:
            index = None if done.cancelled() or done.exception() else done.result()
            if index is not None:
                self._engine.call(partial(lane.speculation.know, tune, index))

        making.add_done_callback(made)

    async def once(self, key: str, load: Callable[[], Any]) -> Any:
        """Loads on the loader's thread; who asks meanwhile waits for the same."""
        future = self._loading.get(key)
        if future is None:
            future = self._loading[key] = self._loop.run_in_executor(self.loader, load)
            future.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(future)

    def _loaded(self, key: str, done: asyncio.Future[Any]) -> None:
        del self._loading[key]
        if not done.cancelled():
            done.exception()

    def forget(self, sha256: str, then: Callable[[], None]) -> None:
        """Lets go of a tune; `then` is called on the loop when nothing answers with it any more."""
        lanes = self._bases.lanes()
        self._kinds.pop(sha256, None)
        self._drafted.discard(sha256)
        self._remove_own(self._own.forget(sha256))

        def forget() -> None:
            for lane in lanes:
                lane.forget(sha256)
            self._loop.call_soon_threadsafe(then)

        self._engine.call(forget)
