"""The engine that answers for every arm: a process of its own, greedy, many questions at once."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality_task import Chat

from afina.domain.manifests import FILES_OF, Manifest, TuneKind, blob_path
from afina.domain.models import BaseModel
from afina.errors import Unavailable
from afina.model.folder import read_record
from afina.pipeline.launcher import trainer_environment
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Delta, Generate, Score
from afina.settings import Settings
from afina.text.renderer import Renderer

AT_ONCE = 16
"""Requests in flight: a batch that two cores answer without waiting for memory."""
START_S = 900.0


@dataclass(frozen=True)
class Served:
    """The base in the engine's data directory, and how to talk about it."""

    data: Path
    base: BaseModel
    renderer: Renderer
    socket: Path

    @property
    def folder(self) -> Path:
        return self.data / "models" / self.base.id

    def publish(self, folder: Path, kind: TuneKind, data_sha256: str) -> str:
        """Puts the files of a tune where the engine finds them; the hash that it is asked by."""
        files = {name: self._keep((folder / name).read_bytes()) for name in FILES_OF[kind]}
        template = self.renderer.template_sha256
        base = self.base
        manifest = Manifest(kind, base.id, base.sha256, files, template, data_sha256)
        return self._keep(manifest.to_bytes())

    def _keep(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        path = blob_path(self.data / "blobs", sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return sha256

    def answers(self, chats: Sequence[Chat], adapter: str | None, max_tokens: int) -> list[str]:
        """The greedy answer to each chat."""
        return asyncio.run(self._answers(chats, adapter, max_tokens))

    async def _answers(
        self, chats: Sequence[Chat], adapter: str | None, max_tokens: int
    ) -> list[str]:
        client, gate = EngineClient(self.socket), asyncio.Semaphore(AT_ONCE)

        async def one(place: int, chat: Chat) -> str:
            request = Generate(
                request_id=f"{os.getpid()}-{time.monotonic_ns()}-{place}",
                base=self.base.id,
                prompt=self.renderer.prompt(chat),
                max_tokens=max_tokens,
                seed=0,
                adapter=adapter,
                temperature=0.0,
                end_tokens=list(self.renderer.end_tokens),
            )
            async with gate:
                parts = [one.text async for one in client.generate(request)
                         if isinstance(one, Delta)]  # fmt: skip
            return "".join(parts)

        return await asyncio.gather(*(one(n, chat) for n, chat in enumerate(chats)))

    def likelihood(
        self, chats: Sequence[Chat], answers: Sequence[str], adapter: str | None
    ) -> float:
        """Nats a token that a model gives to answers, end of turn included; NaN for none."""
        client = BlockingEngineClient(self.socket)

        def score(pair: tuple[Chat, str]) -> list[float]:
            chat, answer = pair
            prompt = self.renderer.prompt(chat)
            row = self.renderer.training_row([*chat, {"role": "assistant", "content": answer}])
            # what follows the prompt: the answer and its end, but not the newline after it
            rest = zip(row.ids[len(prompt) :], row.learned[len(prompt) :], strict=True)
            ids = [token for token, learned in rest if learned]
            return client.score(Score(self.base.id, prompt, ids, adapter=adapter, top=1)).logprobs

        pairs = [pair for pair in zip(chats, answers, strict=True) if pair[1]]
        with ThreadPoolExecutor(AT_ONCE) as pool:  # the engine computes them as one batch
            logs = [value for found in pool.map(score, pairs) for value in found]
        return math.fsum(logs) / len(logs) if logs else math.nan


@contextmanager
def engine(model: Path, data: Path, threads: int) -> Iterator[Served]:
    """The engine over `model`, in a data directory of its own, until the block ends."""
    record = read_record(model)
    if record is None:
        raise SystemExit(f"{model} has no record: afina models pull {model.name} --data .afina")
    link = data / "models" / record.id
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(model.resolve())
    (data / "afina.toml").write_text(f"[engine]\nthreads = {threads}\n")
    settings = Settings.load(data=str(data))
    served = Served(data, record, Renderer.load(model), settings.engine_socket)
    settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    log = (data / "engine.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "afina.serving", "--data", str(data), "--preload", record.id],
        env=trainer_environment(threads),
        stdout=log,
        stderr=log,
    )
    try:
        _wait(served, process)
        yield served
    finally:
        process.terminate()
        process.wait(90)
        log.close()


def _wait(served: Served, process: subprocess.Popen[bytes]) -> None:
    client, deadline = BlockingEngineClient(served.socket), time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.health()
            return
        except Unavailable:
            time.sleep(0.2)
    raise SystemExit(f"the engine did not start; see {served.data / 'engine.log'}")
