"""A look at a vLLM server, for `afina doctor`: is it there, what does it serve, does it take
adapters while it runs. Nothing is changed there. No torch here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from afina.outside_settings import VllmSettings
from afina.serving.vllm.adapters import LOAD
from afina.serving.vllm.bases import LISTED, LOOK_S, VERSION
from afina.serving.vllm.link import VllmLink
from afina.serving.vllm.wire import Cards, Version


@dataclass(frozen=True)
class Seen:
    """What it said of itself."""

    version: str
    names: tuple[str, ...]
    """The bases that it lists."""
    adapters: int
    """Adapters that it lists, ours and others."""
    takes_adapters: bool
    """Whether it has the routes that load and unload them."""
    has_lora: bool
    """Whether it was started to compute with them."""
    is_plain: bool
    """Whether the key goes over the network unencrypted."""


def look(settings: VllmSettings) -> Seen:
    """Asks once. Raises Unavailable where it does not answer, or not as vLLM does."""
    return asyncio.run(_look(settings))


async def _look(settings: VllmSettings) -> Seen:
    link = VllmLink(settings)
    listed = await link.call(LISTED, timeout_s=LOOK_S)
    if listed.status in {401, 403}:
        raise link.away("does not take the key that is set")
    version = await link.call(VERSION, timeout_s=LOOK_S)
    routes = await link.call("/openapi.json", timeout_s=LOOK_S)
    counted = await link.call("/metrics", timeout_s=LOOK_S)
    try:
        cards = listed.read(Cards).data
        told = version.read(Version).version
        paths: dict[str, Any] = routes.read(dict[str, Any])["paths"]
    except (msgspec.DecodeError, LookupError):
        raise link.away("does not answer as vLLM does") from None
    return Seen(
        version=told,
        names=tuple(card.id for card in cards if card.parent is None),
        adapters=sum(card.parent is not None for card in cards),
        takes_adapters=LOAD in paths,
        has_lora=b"vllm:lora_requests_info" in counted.body,
        is_plain=settings.key is not None and not link.is_secure and not link.is_loopback,
    )
