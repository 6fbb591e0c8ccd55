"""How soon the engine answers: arrivals beside a full batch, shared prefixes, cold and many tunes.

    python -m benchmarks.serving_latency [--registered 1000] [--only arrivals,prefixes,cold,many,
                                          background] [--processor-time]

All through the engine's socket, bf16, the client on the same machine. Tunes are adapters of rank 16
on all linear layers; the registered ones differ in their manifests and share sixteen files of
weights, so a cold one is read from the system's file cache, checked, and laid out anew.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
from benchmarks.serving import STARTER, make_adapters, measure, processes, put_blob, question

from afina.domain.codec import decode
from afina.domain.manifests import Manifest, blob_path
from afina.domain.models import BaseModel
from afina.serving.client import EngineClient
from afina.serving.protocol import Delta, Final, Generate
from afina.settings import Settings
from afina.text.renderer import Renderer

STREAMS = 32
PREFIX_TOKENS = 1000
RESIDENT = 64
"""Tunes in memory, as settings have it."""
ROUNDS = 3
PARTS = ("arrivals", "prefixes", "cold", "background", "many")


class Asking:
    """Requests on the engine's socket."""

    def __init__(self, settings: Settings, base: str, renderer: Renderer) -> None:
        self._client = EngineClient(settings.engine_socket)
        self._base = base
        self._renderer = renderer
        self._asked = itertools.count()

    def prompt(self, number: int) -> list[int]:
        """A short prompt's ids."""
        return self._renderer.prompt([{"role": "user", "content": question(number)}])

    async def ask(
        self,
        ids: list[int],
        new_tokens: int,
        adapter: str | None = None,
        *,
        background: bool = False,
    ) -> tuple[int, float]:
        """Tokens, and seconds to the first of them."""
        request = Generate(
            request_id=f"bench-{next(self._asked)}",
            base=self._base,
            prompt=ids,
            max_tokens=new_tokens,
            seed=0,
            adapter=adapter,
            temperature=0.0,
            background=background,
            tag={"bench": "latency"},
        )
        begun = time.perf_counter()
        first, tokens = 0.0, 0
        async with aclosing(self._client.generate(request)) as lines:
            async for line in lines:
                first = first or time.perf_counter() - begun
                tokens += len(line.ids) if isinstance(line, Delta) else 0
                if isinstance(line, Final):
                    tokens = line.completion_tokens
        return tokens, first

    async def until_first(self, ids: list[int], adapter: str | None = None) -> float:
        """Milliseconds to the first token of a request for one."""
        return 1000 * (await self.ask(ids, 1, adapter))[1]


async def arrivals(asking: Asking, adapters: list[str]) -> list[float]:
    """First tokens of requests that arrive one by one while 31 others decode."""
    names: list[str | None] = [None, *adapters]
    others = [
        asyncio.ensure_future(asking.ask(asking.prompt(i), 260, names[i % len(names)]))
        for i in range(STREAMS - 1)
    ]
    await asking.ask(asking.prompt(40), 24)
    found = []
    for number in range(10):
        found.append(await asking.until_first(asking.prompt(100 + number)))
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return found


async def prefixes(asking: Asking) -> tuple[list[float], list[float]]:
    """First tokens of prompts with a new prefix, and of others with the same one."""
    rng = random.Random(7)
    first, second = [], []
    for _ in range(5):
        shared = [rng.randrange(1000, 40_000) for _ in range(PREFIX_TOKENS)]
        first.append(await asking.until_first([*shared, 1001, 1002, 1003]))
        second.append(await asking.until_first([*shared, 1004, 1005, 1006]))
    return first, second


class Processor:
    """Seconds that this process's children have computed."""

    def __init__(self) -> None:
        self._mine = psutil.Process()

    def seconds(self) -> float:
        """Until now, of those that live."""
        times = [child.cpu_times() for child in self._mine.children()]
        return float(sum(one.user + one.system for one in times))


async def many(
    asking: Asking, chosen: list[str], at_once: int = STREAMS, clock: Processor | None = None
) -> float:
    """Tokens a second of requests for 64 tokens, one for each of `chosen`, so many at once; by the
    clock on the wall, or that of the engine's process."""
    begun = 0.0 if clock is None else clock.seconds()
    work = iter(enumerate(chosen))

    async def in_turn() -> tuple[int, float]:
        tokens = 0
        for number, name in work:
            tokens += (await asking.ask(asking.prompt(number), 64, name))[0]
        return tokens, 0.0

    found = await measure([in_turn() for _ in range(at_once)])
    return found.rate if clock is None else found.tokens / (clock.seconds() - begun)


def register(settings: Settings, manifests: list[str], count: int) -> list[str]:
    """So many manifests over the weights of a few."""
    known = [Manifest.from_bytes(blob_path(settings.blobs, m).read_bytes()) for m in manifests]
    made = (replace(known[i % len(known)], settings={"number": str(i)}) for i in range(count))
    return [put_blob(settings, manifest.to_bytes()) for manifest in made]


async def behind(asking: Asking) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds a token of one answer: alone, beside sixteen of the background, and beside
    sixteen that people wait for."""
    found: list[list[float]] = [[], [], []]
    for kind in (0, 1, 2, 2, 1, 0):
        others = [
            asyncio.ensure_future(asking.ask(asking.prompt(i), 400, background=kind == 1))
            for i in range(0 if kind == 0 else 16)
        ]
        await asking.ask(asking.prompt(40), 4)
        for number in range(3):
            begun = time.perf_counter()
            tokens, _ = await asking.ask(asking.prompt(50 + number), 24)
            found[kind].append(1000 * (time.perf_counter() - begun) / tokens)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    return found[0], found[1], found[2]


async def show_prefixes(asking: Asking) -> None:
    """What a kept prefix saves."""
    first, second = await prefixes(asking)
    show(f"prefix of {PREFIX_TOKENS} tokens, first", first)
    show(f"prefix of {PREFIX_TOKENS} tokens, again", second)
    ratio = statistics.median(first) / statistics.median(second)
    print(f"  the second is {ratio:.1f} times as soon", flush=True)


async def show_many(
    asking: Asking, few: list[str], tunes: list[str], clock: Processor | None
) -> None:
    """Sixteen tunes; a thousand of which sixty-four fit; and the same requests once more, with all
    that they ask for in memory: what is left then is the shape of the batch. The first round takes
    the memory of the pages from the system, the others find it taken."""
    rng = random.Random(3)
    weights = [1 / rank for rank in range(1, len(tunes) + 1)]
    for number in range(ROUNDS):
        spread = rng.choices(tunes, weights, k=96)
        kept = sorted(set(spread))[:RESIDENT]
        again = [name if name in kept else rng.choice(kept) for name in spread]
        sixteen = await many(asking, [few[i % 16] for i in range(96)], clock=clock)
        zipf = await many(asking, spread, clock=clock)
        for name in kept:
            await asking.until_first(asking.prompt(0), name)
        warm = await many(asking, again, clock=clock)
        print(
            f"round {number + 1}, 96 requests over 16 tunes: {sixteen:.0f} tokens/s; over "
            f"{len(tunes)} tunes by a Zipf law ({len(set(spread))} asked), {RESIDENT} in memory: "
            f"{zipf:.0f} tokens/s, {zipf / sixteen:.2f} of that; the same ({len(kept)}) with all "
            f"in memory: {warm:.0f} tokens/s, {warm / sixteen:.2f}",
            flush=True,
        )


async def run(
    settings: Settings,
    base: BaseModel,
    registered: int,
    parts: set[str],
    clock: Processor | None,
) -> None:
    """Measures and prints."""
    few = make_adapters(settings, base, 16)
    tunes = register(settings, few, registered)
    asking = Asking(settings, base.id, Renderer.load(settings.models / base.id))
    with processes(settings, base.id, with_api=False):
        await many(asking, few)
        if "arrivals" in parts:
            show("arrives beside 31 of the base", await arrivals(asking, []))
            show("arrives beside 31 of 16 tunes", await arrivals(asking, few))
        if "prefixes" in parts:
            await show_prefixes(asking)
        if "cold" in parts:
            warm = [await asking.until_first(asking.prompt(i), few[i]) for i in range(8)]
            show("warm tune, alone", warm)
            cold = [await asking.until_first(asking.prompt(i), tunes[-1 - i]) for i in range(8)]
            show("cold tune, alone", cold)
        if "background" in parts:
            alone, quiet, loud = await behind(asking)
            show("a token alone", alone)
            show("a token beside 16 of the background", quiet)
            show("a token beside 16 that others wait for", loud)
        if "many" in parts:
            await show_many(asking, few, tunes, clock)


def show(what: str, milliseconds: list[float]) -> None:
    """A line: median and range."""
    low, high = min(milliseconds), max(milliseconds)
    print(f"{what}: {statistics.median(milliseconds):.0f} ms ({low:.0f} to {high:.0f})", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--registered", type=int, default=1000)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="rates of many tunes by the engine's processor time; with AFINA_ENGINE__THREADS=1",
    )
    given = parser.parse_args()
    parts = set(given.only.split(","))
    if not parts <= set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}")
    record = decode(BaseModel, json.loads((given.model / "afina.json").read_text()), "afina.json")
    with tempfile.TemporaryDirectory(prefix="afina-bench-") as folder:
        settings = Settings.load(data=Path(folder))
        settings.models.mkdir()
        (settings.models / record.id).symlink_to(given.model.absolute())
        clock = Processor() if given.processor_time else None
        asyncio.run(run(settings, record, given.registered, parts, clock))


if __name__ == "__main__":
    main()
