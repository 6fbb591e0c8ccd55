"""Requests of benchmarks/api.py: the mix they are drawn from, nine reads to a write, and a client
that asks much and costs little.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
from benchmarks.api_servers import PORT
from benchmarks.api_store import CONTENT, Filled

JSON = "application/json"


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


JOBS = "/v1/fine_tuning/jobs"
_USAGE = "/v1/organization/usage/completions"
READS: dict[str, tuple[int, Drawn]] = {
    "job": (20, get(lambda w: f"{JOBS}/{w.job()}")),
    "jobs, first page": (12, get(lambda _: JOBS)),
    "jobs, 100 after one": (4, get(lambda w: f"{JOBS}?limit=100&after={w.job()}")),
    "jobs of a team": (4, get(lambda w: f"{JOBS}?metadata[team]=team-{w.rng.randrange(50)}")),
    "events": (14, get(lambda w: f"{JOBS}/{w.job()}/events")),
    "events of a long job": (4, get(lambda w: f"{JOBS}/{w.filled.long_job}/events?limit=100")),
    "checkpoints": (4, get(lambda w: f"{JOBS}/{w.job()}/checkpoints")),
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


def pick(world: World) -> tuple[str, Ask]:
    """A request of the mix: one in ten is a write."""
    table = WRITES if world.rng.random() < 0.1 else READS
    names = list(table)
    name = world.rng.choices(names, [table[n][0] for n in names])[0]
    return name, table[name][1](world)


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
        # The server ends a connection that nobody used for half a minute.
        while self._free and self._free[-1].transport.is_closing():
            self._free.pop()
        connection = self._free.pop() if self._free else await self.open()
        answered = await connection.ask(head.encode() + b"\r\n" + ask.body)
        self._free.append(connection)
        return answered

    async def open(self) -> _Answer:
        """A connection of one's own."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Answer, "127.0.0.1", PORT))[1]
