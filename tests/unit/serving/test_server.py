"""The door in this process: what happens when the step loop breaks, and how threads are shared."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.engine_rig import make_data

from afina.errors import EngineFailed, Unavailable
from afina.serving.client import EngineClient
from afina.serving.listener import listen
from afina.serving.protocol import Delta, Final, Generate, Score, UsageRecord
from afina.serving.runner import Runner
from afina.serving.server import Door


def test_a_broken_step_fails_every_stream_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = make_data(tmp_path)
    run = Runner.run
    steps = iter(range(10**6))

    def breaks(self: Runner, plan: object) -> object:
        if next(steps) == 4:
            raise MemoryError("the user's words must not be in the log")
        return run(self, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "run", breaks)

    async def collect(client: EngineClient, name: str) -> list[Delta | Final]:
        return [line async for line in client.generate(Generate(name, "tiny", [3, 4], 400, 0))]

    async def ask(client: EngineClient, name: str) -> None:
        with pytest.raises(EngineFailed):
            await collect(client, name)

    async def story() -> None:
        door = Door(settings)
        server = await listen(settings.engine_socket, door.handle)
        client = EngineClient(settings.engine_socket)
        await asyncio.gather(*(ask(client, f"r{i}") for i in range(3)))
        assert (await door.fault).message == "MemoryError"
        with pytest.raises(Unavailable):
            await collect(client, "late")
        await door.drain(0.0)
        await server.close()

    asyncio.run(story())
    assert settings.journal.read_text().count('"failed"') == 3


def test_the_engine_counts_requests_tokens_and_what_was_found_computed(tmp_path: Path) -> None:
    settings, _ = make_data(tmp_path)

    async def story() -> str:
        door = Door(settings)
        server = await listen(settings.engine_socket, door.handle)
        client = EngineClient(settings.engine_socket)
        for name in ("first", "second"):
            request = Generate(name, "tiny", [5] * 40, 3, 0, temperature=0.0)
            lines = [line async for line in client.generate(request)]
        assert lines[-1] == Final(40, 32, 3)
        found = await client.metrics()
        await door.drain(0.0)
        await server.close()
        return found.decode()

    said = asyncio.run(story())
    model = 'base="tiny",tune=""'
    ended = 'base="tiny",outcome="finished",tune=""'
    assert f"afina_engine_requests_total{{{ended}}} 2.0" in said
    assert f"afina_engine_prompt_tokens_total{{{model}}} 80.0" in said
    assert f"afina_engine_cached_tokens_total{{{model}}} 32.0" in said
    assert f"afina_engine_completion_tokens_total{{{model}}} 6.0" in said
    assert 'afina_engine_first_token_seconds_count{base="tiny"} 2.0' in said
    assert f"afina_engine_cache_blocks_kept{{{model}}} 2.0" in said


def test_scores_with_a_name_are_metered_as_prompts_and_others_are_not(tmp_path: Path) -> None:
    settings, _ = make_data(tmp_path)

    async def story() -> None:
        door = Door(settings)
        server = await listen(settings.engine_socket, door.handle)
        client = EngineClient(settings.engine_socket)
        asked = Score("tiny", [3, 4], [5, 6, 7], top=1)
        told = await client.score(asked)
        asked.request_id, asked.tag = "req_1-echo", {"project": "proj"}
        assert await client.score(asked) == told
        await door.drain(0.0)
        await server.close()

    asyncio.run(story())
    (line,) = settings.journal.read_bytes().splitlines()
    record = msgspec.json.decode(line, type=UsageRecord)
    assert (record.request_id, record.tag) == ("req_1-echo", {"project": "proj"})
    assert (record.prompt_tokens, record.completion_tokens) == (5, 0)


def test_health_and_scores_say_which_weights_answer(tmp_path: Path) -> None:
    settings, _ = make_data(tmp_path, "bf16")
    engine = settings.engine.model_copy(update={"weights": "int4"})
    settings = settings.model_copy(update={"engine": engine})

    async def story() -> tuple[str, str]:
        door = Door(settings)
        server = await listen(settings.engine_socket, door.handle)
        client = EngineClient(settings.engine_socket)
        told = await client.score(Score("tiny", [3, 4], [5, 6, 7], top=1))
        health = await client.health()
        await door.drain(0.0)
        await server.close()
        return told.precision, health.precision

    assert asyncio.run(story()) == ("int4", "int4")
