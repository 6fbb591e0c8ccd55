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
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import psutil
import uvloop
from benchmarks.api_store import CONTENT, Filled, Sizes, fill

from afina.serving.client import EngineClient
from afina.serving.protocol import Generate
from afina.settings import Settings
from afina.text.renderer import Renderer

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
PORT = 18_383
JSON = "application/json"
PARTS = ("load", "alone", "chat", "streams")
MESSAGES = [{"role": "user", "content": "Write a story about a lighthouse keeper, in detail."}]


@dataclass(frozen=True)
class Ask:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    kind: str = JSON


@dataclass
class World:
    """What requests are drawn from; jobs created on the way can be cancelled later."""

    filled: Filled
    rng: random.Random
    created: list[str] = field(default_factory=list)

    def job(self) -> str:
        return self.rng.choice(self.filled.jobs)

    def file(self) -> str:
        return self.rng.choice(self.filled.files)


Drawn = Callable[[World], Ask]


def get(path: Callable[[World], str]) -> Drawn:
    """A read whose path is drawn."""
    return lambda world: Ask("GET", path(world))


def _job(world: World) -> Ask:
    numbers = {"n_epochs": 3, "batch_size": "auto"}
    asked = {
        "model": world.filled.base,
        "training_file": world.file(),
        "suffix": "bench",
        "metadata": {"team": f"team-{world.rng.randrange(50)}"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
    }
    return Ask("POST", "/v1/fine_tuning/jobs", json.dumps(asked).encode())


def _cancel(world: World) -> Ask:
    if not world.created:
        return _job(world)
    return Ask("POST", f"/v1/fine_tuning/jobs/{world.created.pop(0)}/cancel")


def _file(world: World) -> Ask:
    mark = world.rng.randrange(10**9)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="b.jsonl"\r\n\r\n'
        + CONTENT
        + b'{"messages": [], "n": %d}' % mark
        + b"\r\n--x--\r\n"
    )
    return Ask("POST", "/v1/files", body, "multipart/form-data; boundary=x")


def _upload(_: World) -> Ask:
    asked = {
        "bytes": 1000, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune",
    }  # fmt: skip
    return Ask("POST", "/v1/uploads", json.dumps(asked).encode())


_JOBS = "/v1/fine_tuning/jobs"
_USAGE = "/v1/organization/usage/completions"
READS: dict[str, tuple[int, Drawn]] = {
    "job": (20, get(lambda w: f"{_JOBS}/{w.job()}")),
    "jobs, first page": (12, get(lambda _: _JOBS)),
    "jobs, 100 after one": (4, get(lambda w: f"{_JOBS}?limit=100&after={w.job()}")),
    "jobs of a team": (4, get(lambda w: f"{_JOBS}?metadata[team]=team-{w.rng.randrange(50)}")),
    "events": (14, get(lambda w: f"{_JOBS}/{w.job()}/events")),
    "events of a long job": (4, get(lambda w: f"{_JOBS}/{w.filled.long_job}/events?limit=100")),
    "checkpoints": (4, get(lambda w: f"{_JOBS}/{w.job()}/checkpoints")),
    "file": (10, get(lambda w: f"/v1/files/{w.file()}")),
    "files, a page of 100": (4, get(lambda _: "/v1/files?limit=100")),
    "a file's content": (4, get(lambda w: f"/v1/files/{w.file()}/content")),
    "model": (6, get(lambda w: f"/v1/models/{w.rng.choice(w.filled.models)}")),
    "models, all": (1, get(lambda _: "/v1/models")),
    "batches": (2, get(lambda _: "/v1/batches")),
    "usage of a day": (1, get(lambda _: f"{_USAGE}?start_time=1779000000&limit=1")),
}  # fmt: skip
WRITES: dict[str, tuple[int, Drawn]] = {
    "create a job": (5, _job),
    "cancel a job": (2, _cancel),
    "upload a small file": (2, _file),
    "open an upload": (1, _upload),
}
ALONE = ("jobs, first page", "jobs of a team", "files, a page of 100", "models, all")


class _Answer(asyncio.Protocol):
    """One connection that is kept alive; it answers one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self.transport: Any = None
        self.body = bytearray()
        self.status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionResetError())

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        self.body = bytearray()
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        await self._waiter
        return self.status, bytes(self.body)


class Client:
    """Connections to the API, kept alive; a request takes one that is free, or opens another."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._free: list[_Answer] = []

    async def ask(self, ask: Ask) -> tuple[int, bytes]:
        """Status and body."""
        head = (
            f"{ask.method} {ask.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._key}\r\n"
        )
        if ask.method == "POST":
            head += f"content-type: {ask.kind}\r\ncontent-length: {len(ask.body)}\r\n"
        connection = self._free.pop() if self._free else await self.open()
        answered = await connection.ask(head.encode() + b"\r\n" + ask.body)
        self._free.append(connection)
        return answered

    async def open(self) -> _Answer:
        """A connection of one's own."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Answer, "127.0.0.1", PORT))[1]


def pick(world: World) -> tuple[str, Ask]:
    """A request of the mix: one in ten is a write."""
    table = WRITES if world.rng.random() < 0.1 else READS
    names = list(table)
    name = world.rng.choices(names, [table[n][0] for n in names])[0]
    return name, table[name][1](world)


class Stalls:
    """Asks the server where its threads stand, when a request waits for too long."""

    def __init__(self, log: Path, beyond_ms: float) -> None:
        self._log, self._beyond_s = log, beyond_ms / 1000
        self._door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.waiting: dict[int, tuple[str, float]] = {}
        self.seen: list[str] = []

    async def watch(self, begun: float) -> None:
        """Until it is cancelled; once a second at most."""
        while True:
            await asyncio.sleep(0.02)
            now = time.perf_counter() - begun
            late = [(now - due, name) for name, due in self.waiting.values()]
            late = [one for one in late if one[0] > self._beyond_s]
            if late:
                self._door.sendto(b"?", ("127.0.0.1", PORT))
                names = ", ".join(sorted({name for _, name in late}))
                self.seen.append(
                    f"{now:6.2f} s: {len(late)} wait, {1000 * max(late)[0]:.0f} ms: {names}"
                )
                await asyncio.sleep(1)

    def show(self) -> None:
        """What was seen, and the stacks of the first of it."""
        print(f"\nrequests that waited for more than {1000 * self._beyond_s:.0f} ms")
        print("\n".join(self.seen) or "none")
        stacks = self._log.read_text(errors="replace").split("Thread ")[1:]
        places = Counter(_frames(stack) for stack in stacks)
        for stack, count in places.most_common(12):
            print(f"\n{count} times\n{stack}")


def _frames(stack: str) -> str:
    """The frames alone: lines of the log may stand between them."""
    return "\n".join(line for line in stack.splitlines()[1:] if line.startswith("  "))


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

    under_way = []
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
    await client.ask(Ask("GET", _JOBS))
    page = 1000 * (time.perf_counter() - begun)
    for connection in held:
        connection.transport.abort()
    return (
        f"streams: {count} waiting take {(after - before) / 1e6:.0f} MB ({before / 1e6:.0f} MB "
        f"before), {share * 100:.1f} % of a core; a page of jobs beside them {page:.1f} ms"
    )


@contextlib.contextmanager
def process(*command: str, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child of this one, stopped at the end."""
    child = subprocess.Popen(command, **given)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


@contextlib.contextmanager
def api(data: Path) -> Iterator[psutil.Process]:
    """`afina api` on that data directory."""
    module = (sys.executable, "-m", "benchmarks.api_stacks", str(PORT))
    command = (*module, "api", "--data", str(data), "--port", str(PORT))
    with (data / "api.txt").open("wb") as log, process(*command, stdout=log, stderr=log) as child:
        deadline = time.monotonic() + 60
        while b"listens" not in (data / "api.txt").read_bytes():
            assert time.monotonic() < deadline, "the api did not start"
            time.sleep(0.1)
        time.sleep(1)
        yield psutil.Process(child.pid)


@contextlib.contextmanager
def disturbed(folder: Path) -> Iterator[None]:
    """Another process writes 256 MB after 256 MB on this disk, and syncs each."""
    write = (
        "import os, sys\n"
        "piece = os.urandom(1 << 20)\n"
        "while True:\n"
        "    with open(sys.argv[1], 'wb') as file:\n"
        "        for _ in range(256): file.write(piece)\n"
        "        file.flush(); os.fsync(file.fileno())\n"
    )
    with process(sys.executable, "-c", write, str(folder / "disturbance")):
        yield
    (folder / "disturbance").unlink(missing_ok=True)


@contextlib.contextmanager
def engine(data: Path) -> Iterator[None]:
    """An engine that answers from a script, and holds answers to `user: held` after a word."""
    settings = Settings(data=data)
    with process(sys.executable, "-m", "benchmarks.api", "--engine", str(data)):
        deadline = time.monotonic() + 60
        while not settings.engine_socket.exists():
            assert time.monotonic() < deadline, "the engine did not start"
            time.sleep(0.1)
        yield


def be_the_engine(data: Path) -> None:
    """Runs until SIGTERM."""
    import threading

    from afina.serving.testing import Script, ScriptedEngine

    settings = Settings(data=data)
    settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    never, stop = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ScriptedEngine(settings.engine_socket, settings.journal) as scripted:
        scripted.script = lambda asked: Script(hold=never if asked.max_tokens == 64 else None)
        stop.wait()
        os._exit(0)


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
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        be_the_engine(asked.engine)
        return
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
