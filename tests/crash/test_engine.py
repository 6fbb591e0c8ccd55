"""The engine as a process: started, asked, left, overloaded, drained and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.engine_rig import make_data, put_adapter

from afina.domain.manifests import blob_path
from afina.domain.models import BaseModel
from afina.errors import (
    AfinaError,
    ContextTooLong,
    EngineFailed,
    Internal,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unavailable,
)
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Delta, Final, Generate, Score, UsageRecord
from afina.settings import Settings, child_environment

CONTEXT = 20_000
PROMPT = [5, 6, 7, 8, 9, 10, 11]


@dataclass
class Running:
    """An engine's process and what it serves."""

    settings: Settings
    record: BaseModel
    process: subprocess.Popen[bytes]
    adapters: list[str] = field(default_factory=list)

    @property
    def client(self) -> EngineClient:
        return EngineClient(self.settings.engine_socket)

    def usage(self) -> list[UsageRecord]:
        lines = self.settings.journal.read_text().splitlines()
        return [UsageRecord(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def running(folder: Path, **limits: int) -> Iterator[Running]:
    settings, record = make_data(folder, max_position_embeddings=CONTEXT)
    adapters = [put_adapter(settings, record, seed, strength=3.0) for seed in (1, 2, 3)]
    given = {f"AFINA_ENGINE__{name.upper()}": str(value) for name, value in limits.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "afina.serving", "--data", str(folder), "--preload", "tiny"],
        env=child_environment(AFINA_ENGINE__PRECISION="fp32", OMP_NUM_THREADS="1", **given),
    )
    try:
        wait_until_ready(settings, process)
        yield Running(settings, record, process, adapters)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    client = BlockingEngineClient(settings.engine_socket)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(AfinaError):
            if client.health().bases:
                return
        threading.Event().wait(0.05)
    raise AssertionError(f"the engine did not become ready (exit code {process.poll()})")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("engine")
    with running(folder, max_batch=4, max_queue=2, cache_tokens=65_536, threads=1) as started:
        yield started


_asked = iter(range(10**9))


def request(**given: object) -> Generate:
    asked = Generate(f"r{next(_asked)}", "tiny", list(PROMPT), 12, 0, temperature=0.0)
    for name, value in given.items():
        setattr(asked, name, value)
    return asked


async def tokens(engine: Running, asked: Generate) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(asked.n)]
    async for line in engine.client.generate(asked):
        if isinstance(line, Delta):
            found[line.choice] += line.ids
    return found


@contextlib.asynccontextmanager
async def streaming(
    engine: Running, asked: Generate
) -> AsyncIterator[AsyncIterator[Delta | Final]]:
    """A stream that has begun."""
    async with contextlib.aclosing(engine.client.generate(asked)) as lines:
        await anext(lines)
        yield lines


async def until(engine: Running, running_now: int, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while (await engine.client.health()).running != running_now:
            await asyncio.sleep(0.01)


def test_adapters_never_answer_for_each_other(engine: Running) -> None:
    names = [None, *engine.adapters]

    async def story() -> None:
        alone = [(await tokens(engine, request(adapter=name)))[0] for name in names]
        assert len({tuple(ids) for ids in alone}) == len(names)
        for _ in range(5):
            asked = [request(adapter=name) for name in names]
            together = await asyncio.gather(*(tokens(engine, one) for one in asked))
            assert [ids[0] for ids in together] == alone

    asyncio.run(story())


def test_the_same_seed_gives_the_same_answer_in_any_company(engine: Running) -> None:
    async def story() -> None:
        mine = request(temperature=1.0, top_p=0.9, seed=11)
        alone = await tokens(engine, mine)
        again = request(temperature=1.0, top_p=0.9, seed=11)
        others = [
            request(temperature=1.3, seed=i, adapter=engine.adapters[i % 3]) for i in (1, 2, 3)
        ]
        together = await asyncio.gather(*(tokens(engine, one) for one in (again, *others)))
        assert together[0] == alone
        different = await tokens(engine, request(temperature=1.0, top_p=0.9, seed=12))
        assert different != alone

    asyncio.run(story())


def test_several_answers_share_one_prompt_and_differ(engine: Running) -> None:
    async def story() -> None:
        asked = request(temperature=1.0, seed=5, n=6, prompt=list(range(5, 45)))
        answers = await tokens(engine, asked)
        assert len({tuple(ids) for ids in answers}) == 6
        first = await tokens(engine, request(temperature=1.0, seed=5, prompt=list(range(5, 45))))
        assert first[0] == answers[0]
        used = next(u for u in engine.usage() if u.request_id == asked.request_id)
        assert (used.prompt_tokens, used.completion_tokens) == (40, 6 * 12)

    asyncio.run(story())


def test_scoring_forced_ids_gives_the_log_probabilities_of_generating_them(engine: Running) -> None:
    async def story() -> None:
        adapter = engine.adapters[0]
        asked = request(adapter=adapter, logprobs=5)
        told = []
        async for line in engine.client.generate(asked):
            if isinstance(line, Delta):
                told += line.logprobs
        ids = [one.id for one in told]
        scored = await engine.client.score(Score("tiny", list(PROMPT), ids, adapter, top=5))
        assert scored.precision == "fp32"
        assert scored.logprobs == pytest.approx([one.logprob for one in told], abs=1e-5)
        assert scored.top_ids == [[top.id for top in one.top] for one in told]

    asyncio.run(story())


def test_a_client_that_goes_away_frees_its_place_within_a_second(engine: Running) -> None:
    async def story() -> None:
        asked = request(max_tokens=15_000, tag={"key": "k1"})
        async with streaming(engine, asked):
            await until(engine, 1, within_s=5)
        await until(engine, 0, within_s=1)
        left = next(u for u in engine.usage() if u.request_id == asked.request_id)
        assert (left.outcome, left.tag, left.prompt_tokens) == ("left", {"key": "k1"}, len(PROMPT))
        assert left.completion_tokens > 0

    asyncio.run(story())


def test_a_full_queue_is_a_refusal_with_a_time_to_come_back(engine: Running) -> None:
    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                long = request(max_tokens=15_000)
                await stack.enter_async_context(streaming(engine, long))
            waiting = [asyncio.ensure_future(tokens(engine, request())) for _ in range(2)]
            async with asyncio.timeout(10):
                while (await engine.client.health()).waiting < 2:
                    await asyncio.sleep(0.01)
            with pytest.raises(Overloaded) as caught:
                await tokens(engine, request())
            assert caught.value.retry_after_s
        answers = await asyncio.gather(*waiting)
        assert all(len(ids[0]) == 12 for ids in answers)

    asyncio.run(story())


def test_what_cannot_be_served_is_refused_by_kind(engine: Running) -> None:
    blob = blob_path(engine.settings.blobs, engine.adapters[2])
    whole = blob.read_bytes()

    async def refused(kind: type[AfinaError], **given: object) -> None:
        with pytest.raises(kind) as caught:
            await tokens(engine, request(**given))
        assert type(caught.value) is kind

    async def story() -> None:
        await refused(ContextTooLong, max_tokens=CONTEXT)
        await refused(ModelNotFound, base="unknown")
        await refused(ModelNotFound, base="../models/tiny")
        await refused(ModelNotFound, adapter="0" * 64)
        await refused(ModelNotFound, adapter="../../etc")
        await refused(InvalidRequest, prompt=[])
        await refused(InvalidRequest, prompt=[10**6])
        await refused(InvalidRequest, n=0)
        await refused(InvalidRequest, max_tokens=0)
        await engine.client.forget(engine.adapters[2])
        blob.write_bytes(whole + b" ")
        await refused(Internal, adapter=engine.adapters[2])
        blob.write_bytes(whole)
        assert len((await tokens(engine, request(adapter=engine.adapters[2])))[0]) == 12

    try:
        asyncio.run(story())
    finally:
        blob.write_bytes(whole)


def test_a_forgotten_adapter_leaves_memory(engine: Running) -> None:
    async def story() -> None:
        await tokens(engine, request(adapter=engine.adapters[1]))
        assert engine.adapters[1] in (await engine.client.health()).adapters
        await engine.client.forget(engine.adapters[1])
        await tokens(engine, request())
        assert engine.adapters[1] not in (await engine.client.health()).adapters

    asyncio.run(story())


def test_a_drained_engine_finishes_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    with running(tmp_path, threads=1) as engine:

        async def story() -> None:
            asked = request(max_tokens=400)
            async with streaming(engine, asked) as lines:
                engine.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(10):
                    while (await engine.client.health()).status != "draining":
                        await asyncio.sleep(0.01)
                with pytest.raises(Unavailable):
                    await tokens(engine, request())
                rest = [line async for line in lines]
            assert isinstance(rest[-1], Final)
            assert rest[-1].completion_tokens == 400

        asyncio.run(story())
        assert engine.process.wait(timeout=20) == 0
        assert not engine.settings.engine_socket.exists()
        assert [u.outcome for u in engine.usage()] == ["finished"]


def test_a_killed_engine_is_an_error_and_never_a_short_answer(tmp_path: Path) -> None:
    with running(tmp_path, threads=1) as engine:

        async def story() -> None:
            async with streaming(engine, request(max_tokens=15_000)) as lines:
                engine.process.kill()
                engine.process.wait()
                with pytest.raises(EngineFailed):
                    async for _ in lines:
                        pass
            with pytest.raises(Unavailable):
                await tokens(engine, request())

        asyncio.run(story())
