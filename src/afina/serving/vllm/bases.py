"""Which bases a vLLM server answers for, learned from the server and never guessed.

A base is served there if the settings name it, or if the server lists its id; the tokeniser must
give the ids that ours gives, so that another model under the same name is found out before anybody
is answered by it. Used from the event loop alone. No torch here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from afina.domain.clock import Clock
from afina.domain.models import BaseModel
from afina.errors import AfinaError, BaseRefused, Unavailable
from afina.outside_settings import VllmSettings
from afina.serving.bounds import Bounds
from afina.serving.vllm.link import VllmLink
from afina.serving.vllm.wire import Card, Cards, Tokens, Version
from afina.text.tokenizer import ChatTokenizer

LISTED: Final = "/v1/models"
VERSION: Final = "/version"
TOKENIZE: Final = "/tokenize"
FRESH_S: Final = 1.0
"""A list that old is not asked for again."""
LOOK_S: Final = 5.0
PROBE: Final = "Ask: ¿cuánto es 12 × 34? \n\tdef f(x): return x  # 你好, Grüße\n"
_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ServedBase:
    """A base that the server answers for."""

    base_id: str
    name: str
    """What it is called there."""
    root: str | None
    """The folder that the server was started on."""
    tokenizer: ChatTokenizer
    bounds: Bounds


class ServedBases:
    """What the server lists, matched with the bases of this machine."""

    def __init__(
        self,
        settings: VllmSettings,
        link: VllmLink,
        clock: Clock,
        record: Callable[[str], BaseModel],
        models: Path,
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._settings = settings
        self._link = link
        self._clock = clock
        self._record = record
        self._models = models
        self._in_thread = in_thread
        self._served: dict[str, ServedBase] = {}
        self._refused: dict[str, BaseRefused] = {}
        self._looked_at: float | None = None
        self._lock = asyncio.Lock()
        self.version = ""
        self.cards: list[Card] = []
        """What the server listed last."""
        self.asked_at = 0.0
        self.is_reachable = False

    @property
    def ids(self) -> list[str]:
        """The bases that the server answers for, as far as is known."""
        return sorted(self._served)

    @property
    def engine(self) -> str:
        """What the server calls itself."""
        return f"vllm {self.version}".strip()

    async def find(self, base_id: str) -> ServedBase | None:
        """The base as the server has it; None if afina's own engine answers for it. Raises
        Unavailable where that cannot be known now, BaseRefused where the server has another model
        under its name."""
        named = self._settings.models
        if named and base_id not in named:
            return None
        if base_id not in self._served and base_id not in self._refused:
            try:
                await self.look()
            except Unavailable:
                if named or self._looked_at is None:
                    raise  # else the last list holds: it did not name this base
        if base_id in self._refused:
            raise self._refused[base_id]
        found = self._served.get(base_id)
        if found is None and named:
            raise Unavailable(
                f"The vLLM server lists no model {named[base_id]!r}, which the settings name for "
                f"{base_id!r}.",
                remedy="Start it with that --served-model-name, or change "
                "AFINA_ENGINE__VLLM__MODELS.",
            )
        return found

    async def look(self) -> None:
        """Asks the server what it serves. Raises Unavailable where it does not answer."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._looked_at is not None and now - self._looked_at < FRESH_S:
                return
            try:
                await self._ask()
            except AfinaError:
                self.is_reachable = False
                raise
            self._looked_at, self.asked_at, self.is_reachable = now, now, True

    async def _ask(self) -> None:
        listed = await self._link.call(LISTED, timeout_s=LOOK_S)
        if not listed.is_ok:
            hint = "does not take afina's key" if listed.status in {401, 403} else "lists no models"
            raise self._link.away(f"{hint} ({listed.status})")
        version = await self._link.call(VERSION, timeout_s=LOOK_S)
        try:
            self.cards = listed.read(Cards).data
            self.version = version.read(Version).version if version.is_ok else ""
        except msgspec.DecodeError:
            raise self._link.away("does not answer as vLLM does") from None
        bases = {card.id: card for card in self.cards if card.parent is None}
        wanted = self._settings.models or {id: id for id in bases}
        served: dict[str, ServedBase] = {}
        self._refused.clear()
        for base_id, name in wanted.items():
            if name in bases:
                await self._take(served, base_id, bases[name])
        self._served = served

    async def _take(self, served: dict[str, ServedBase], base_id: str, card: Card) -> None:
        known = self._served.get(base_id)
        if known is not None and (known.root != card.root or not self.is_reachable):
            known = None  # it may have been started again since, on something else
        try:
            record = self._record(base_id)
        except AfinaError:
            return  # a model of the server's that is no base of this machine
        context = record.context_tokens
        if card.max_model_len is not None:
            context = min(context or card.max_model_len, card.max_model_len)
        try:
            tokenizer = known.tokenizer if known else await self._tokenizer(record, card.id)
        except BaseRefused as error:
            _LOG.warning("vllm.base_refused", base=base_id, reason=error.message)
            self._refused[base_id] = error
            return
        bounds = Bounds(tokenizer.vocab_size, context)
        served[base_id] = ServedBase(base_id, card.id, card.root, tokenizer, bounds)

    async def _tokenizer(self, record: BaseModel, name: str) -> ChatTokenizer:
        """Ours, once the server's is known to give the same ids."""
        folder = self._models / record.id
        ours: ChatTokenizer = await self._in_thread(ChatTokenizer.load, folder)
        asked = {"model": name, "prompt": PROBE, "add_special_tokens": False}
        reply = await self._link.call(TOKENIZE, asked)
        try:
            theirs = reply.read(Tokens).tokens if reply.is_ok else None
        except msgspec.DecodeError:
            theirs = None
        if theirs != ours.encode(PROBE):
            why = "does not say" if theirs is None else "gives other ids to"
            raise BaseRefused(
                f"The vLLM server {why} a text as its model {name!r}: it is not known to be the "
                f"base {record.id!r} of this machine.",
                param="model",
                remedy=f"Start vLLM on {folder}, or name it otherwise there.",
            )
        return ours
