"""How soon the API answers: a store of 100,000 jobs, 100 requests a second, nine reads to a write.

    python -m benchmarks.api [--only load,alone,chat,streams] [--rate 100] [--seconds 60]
                             [--disturb] [--stalls 300]

`afina api` runs as a process of its own, an engine that answers from a script as another; this one
asks. Requests leave at times drawn beforehand (a Poisson process), whether or not those before them
were answered, and a request's time counts from the moment that was drawn: a server that stalls
shows in every request that had to wait. What is asked is drawn from `READS` and `WRITES`.

    load      the mix, by operation
    alone     the first page of lists, one after another
    chat      a chat through the API beside the same request on the engine's own socket
    streams   a thousand answers that have begun and wait: what they cost in memory

`--disturb` lets another process write and sync large files on the same disk meanwhile. `--stalls`
looks for requests that wait for so many milliseconds, and prints where the server's threads stood.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import uvloop
from benchmarks.api_requests import ALONE, JOBS, JSON, READS, WRITES, Ask, Client, World, pick
from benchmarks.api_servers import Stalls, api, disturbed, engine
from benchmarks.api_store import Filled, Sizes, fill

from afina.serving.client import EngineClient
from afina.serving.protocol import Generate
from afina.settings import Settings
from afina.text.renderer import Renderer

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
PARTS = ("load", "alone", "chat", "streams")
MESSAGES = [{"role": "user", "content": "Write a story about a lighthouse keeper, in detail."}]


async def load(world: World, rate: float, seconds: float, stalls: Stalls) -> dict[str, list[float]]:
    """Milliseconds of every request, by operation."""
    client = Client(world.filled.key)
    took: dict[str, list[float]] = {}
    for draw in (*READS.values(), *WRITES.values()):  # every route once, before the clock runs
        await client.ask(draw[1](world))
    begun = time.perf_counter()
    watching = asyncio.ensure_future(stalls.watch(begun))

    async def one(number: int, name: str, ask: Ask, due: float) -> None:
        stalls.waiting[number] = name, due
        status, body = await client.ask(ask)
        del stalls.waiting[number]
        took.setdefault(name, []).append(1000 * (time.perf_counter() - begun - due))
        if status != 200:
            raise AssertionError(f"{name}: {status} {body[:300]!r}")
        if name == "create a job":
            world.created.append(json.loads(body)["id"])

    under_way: list[asyncio.Task[None]] = []
    due = 0.0
    while (due := due + world.rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - begun)))
        name, ask = pick(world)
        under_way.append(asyncio.ensure_future(one(len(under_way), name, ask, due)))
    await asyncio.gather(*under_way)
    watching.cancel()
    return took


async def alone(world: World, rounds: int = 50) -> dict[str, list[float]]:
    """Milliseconds of the first pages, one request after another."""
    client = Client(world.filled.key)
    took: dict[str, list[float]] = {name: [] for name in ALONE}
    for _ in range(rounds):
        for name in ALONE:
            begun = time.perf_counter()
            status, body = await client.ask(READS[name][1](world))
            took[name].append(1000 * (time.perf_counter() - begun))
            assert status == 200, body[:300]
    return took


async def chats(world: World, settings: Settings, rounds: int = 400) -> dict[str, list[float]]:
    """Milliseconds of a chat of one word, in turns: through the API, and at the engine."""
    client = Client(world.filled.key)
    asked = {"model": world.filled.base, "messages": MESSAGES, "max_completion_tokens": 8}
    whole = Ask("POST", "/v1/chat/completions", json.dumps(asked).encode())
    folder = settings.models / world.filled.base
    ids = Renderer.load(folder).prompt(MESSAGES)
    engine = EngineClient(settings.engine_socket)
    through: list[float] = []
    direct: list[float] = []
    for number in range(rounds):
        begun = time.perf_counter()
        status, body = await client.ask(whole)
        middle = time.perf_counter()
        assert status == 200, body[:300]
        request = Generate(f"bench-{number}", world.filled.base, ids, max_tokens=8, seed=0, tag={})
        async with aclosing(engine.generate(request)) as lines:
            async for _ in lines:
                pass
        direct.append(1000 * (time.perf_counter() - middle))
        through.append(1000 * (middle - begun))
    return {"chat through the api": through, "the same at the engine": direct}


async def streams(world: World, api: psutil.Process, count: int) -> str:
    """Answers that have sent their first piece and wait for the next."""
    asked = {
        "model": world.filled.base, "messages": MESSAGES, "stream": True,
        "max_completion_tokens": 64, "user": "held",
    }  # fmt: skip
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
        f"{world.filled.key}\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    client = Client(world.filled.key)
    before = api.memory_info().rss
    held = []
    for number in range(count):
        connection = await client.open()
        held.append(connection)
        connection.transport.write(head + body)
        if number % 20 == 19:
            await asyncio.sleep(0.05)
    deadline = time.monotonic() + 60
    while (open_now := sum(b"data: " in c.body for c in held)) < count:
        assert time.monotonic() < deadline, f"only {open_now} of {count} streams began"
        await asyncio.sleep(0.1)
    after = api.memory_info().rss
    cpu = sum(api.cpu_times()[:2])
    await asyncio.sleep(5)
    share = (sum(api.cpu_times()[:2]) - cpu) / 5
    begun = time.perf_counter()
    await client.ask(Ask("GET", JOBS))
    page = 1000 * (time.perf_counter() - begun)
    for connection in held:
        connection.transport.abort()
    return (
        f"streams: {count} waiting take {(after - before) / 1e6:.0f} MB ({before / 1e6:.0f} MB "
        f"before), {share * 100:.1f} % of a core; a page of jobs beside them {page:.1f} ms"
    )


def line(name: str, took: list[float]) -> str:
    """Count, median, 99th percentile and maximum in milliseconds."""
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"{name:<28} {len(took):>6} {statistics.median(took):>8.1f} {p99:>8.1f} {ordered[-1]:>8.1f}"
    )


def machine(server: psutil.Process) -> tuple[float, float]:
    """Seconds of a core that the server took, and that the rest of the machine took: with much of
    those, times say little about the server. What a host took from this machine counts too."""
    own = sum(server.cpu_times()[:2])
    mine = sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children())
    mine += sum(psutil.Process().cpu_times()[:2])
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return own, busy - mine


def show(took: dict[str, list[float]], order: dict[str, Any] | None = None) -> None:
    """A line for each operation, and for what they are together."""
    print(f"{'ms':<28} {'count':>6} {'median':>8} {'p99':>8} {'most':>8}")
    for name in order or took:
        if name in took:
            print(line(name, took[name]))


async def ask_all(world: World, asked: argparse.Namespace, server: psutil.Process) -> None:
    """The parts that were asked for, one after another."""
    parts = asked.only.split(",")
    if "alone" in parts:
        print("\nfirst pages, one after another")
        show(await alone(world))
    if "load" in parts:
        print(f"\n{asked.rate:.0f} requests a second for {asked.seconds:.0f} s")
        stalls = Stalls(asked.data / "api.txt", asked.stalls)
        before = machine(server)
        with disturbed(asked.data) if asked.disturb else contextlib.nullcontext():
            took = await load(world, asked.rate, asked.seconds, stalls)
        spent, others = (b - a for a, b in zip(before, machine(server), strict=True))
        show(took, READS | WRITES)
        for name, table in (("all reads", READS), ("all writes", WRITES)):
            print(line(name, [ms for n in table for ms in took.get(n, [])]))
        spent, others = (seconds / asked.seconds * 100 for seconds in (spent, others))
        print(f"the api took {spent:.0f} % of a core, what is not of this benchmark {others:.0f} %")
        stalls.show()
    if "chat" in parts:
        print("\na chat of five words, in turns")
        took = await chats(world, Settings(data=asked.data))
        show(took)
        through, direct = took.values()
        added = [a - b for a, b in zip(through, direct, strict=True)]
        print(line("the gateway adds", added))
    if "streams" in parts:
        print()
        print(await streams(world, server, asked.streams))


def main() -> None:
    """Fills a store unless there is one, starts the servers, prints every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--disturb", action="store_true", help="write large files meanwhile")
    parser.add_argument("--stalls", type=float, default=300, help="milliseconds")
    parser.add_argument("--data", type=Path, help="keep the store here and use it again")
    asked = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        if asked.data is None:
            asked.data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = asked.data / "filled.json"
        if not kept.exists():
            begun = time.perf_counter()
            filled = fill(asked.data, STARTER, Sizes(asked.jobs))
            kept.write_text(json.dumps(filled.__dict__))
            size = (asked.data / "afina.db").stat().st_size
            print(f"filled in {time.perf_counter() - begun:.0f} s, {size / 1e6:.0f} MB")
        world = World(Filled(**json.loads(kept.read_text())), random.Random(11))
        stack.enter_context(engine(asked.data))
        server = stack.enter_context(api(asked.data))
        uvloop.run(ask_all(world, asked, server))


if __name__ == "__main__":
    main()
