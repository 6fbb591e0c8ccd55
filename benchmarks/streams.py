"""What a thousand open streams cost in memory, the engine included.

    python -m benchmarks.streams [--streams 1000]

`afina api` and `afina engine` on the starter, each a process of its own. Once the engine's batch
was full, so that its cache is laid out, so many streams of chats are opened through the API: a
batch of them is answered, the others wait in the engine's queue. Then all are left, and the memory
is looked at once more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import uvloop
from benchmarks.api import MESSAGES, STARTER
from benchmarks.api_requests import JSON, Ask, Client
from benchmarks.api_servers import api, process

from afina.settings import Settings, child_environment

BATCH = 32


@contextlib.contextmanager
def engine(data: Path, queue: int) -> Iterator[psutil.Process]:
    """`afina engine` with room for so many who wait."""
    given = {"AFINA_ENGINE__MAX_QUEUE": str(queue), "AFINA_ENGINE__MAX_BATCH": str(BATCH)}
    command = (sys.executable, "-m", "afina.cli", "engine", "--data", str(data))
    with process(*command, env=child_environment(**given)) as child:
        deadline = time.monotonic() + 90
        while not Settings(data=data).engine_socket.exists():
            assert time.monotonic() < deadline, "the engine did not start"
            time.sleep(0.1)
        yield psutil.Process(child.pid)


def held(*processes: psutil.Process) -> list[float]:
    """Megabytes of each."""
    return [p.memory_info().rss / 1e6 for p in processes]


async def measure(count: int, key: str, api_: psutil.Process, engine_: psutil.Process) -> None:
    """Prints what the streams cost."""
    client = Client(key)
    asked = {"model": STARTER.name, "messages": MESSAGES, "max_completion_tokens": 48}
    whole = Ask("POST", "/v1/chat/completions", json.dumps(asked).encode())
    answers = await asyncio.gather(*(client.ask(whole) for _ in range(BATCH)))
    assert all(status == 200 for status, _ in answers), answers[0]
    before = held(api_, engine_)
    body = json.dumps(asked | {"stream": True, "max_completion_tokens": 400}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    streams = []
    for number in range(count):
        streams.append(await client.open())
        streams[-1].transport.write(head + body)
        if number % 20 == 19:
            await asyncio.sleep(0.02)
    for _ in range(40):
        await asyncio.sleep(0.25)
        under_way = len(psutil.Process(engine_.pid).net_connections("unix"))
        if under_way >= count:
            break
    during = held(api_, engine_)
    answered = sum(bool(stream.body) for stream in streams)
    for stream in streams:
        stream.transport.abort()
    await asyncio.sleep(3)
    after = held(api_, engine_)
    costs = [b - a for a, b in zip(before, during, strict=True)]
    print(f"{count} streams open, {under_way} connections at the engine, {answered} begun")
    for name, *megabytes in zip(("api", "engine"), before, during, after, strict=True):
        print(f"{name:<8} {megabytes[0]:6.0f} MB before, {megabytes[1]:.0f} with them, "
              f"{megabytes[2]:.0f} after")  # fmt: skip
    print(f"they cost {sum(costs):.0f} MB")


def main() -> None:
    """Starts both, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    count = parser.parse_args().streams
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        shutil.copytree(STARTER, data / "models" / STARTER.name, copy_function=os.link)
        with engine(data, count + BATCH) as engine_, api(data) as api_:
            key = (data / "api-key").read_text().strip()
            uvloop.run(measure(count, key, api_, engine_))


if __name__ == "__main__":
    main()
