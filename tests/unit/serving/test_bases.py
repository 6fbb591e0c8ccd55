"""Bases in memory: idle ones make room for one that would not fit, and requests keep theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from tests.engine_rig import make_data, put_own
from tests.tiny import make_tiny_model

from afina.domain.codec import decode
from afina.domain.models import BaseModel
from afina.errors import ModelNotFound, Overloaded
from afina.serving.client import EngineClient
from afina.serving.listener import listen
from afina.serving.protocol import Final, Generate
from afina.serving.server import Door
from afina.settings import Settings

PLENTY = 10**12


class Memory:
    """How much is free, as a test has it."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self) -> int:
        return self.free


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory(PLENTY)
    monkeypatch.setattr("afina.serving.holdings.free_bytes", made)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made, _ = make_data(tmp_path, max_position_embeddings=4096)
    make_tiny_model(made.models / "other", base_id="other")
    return made


@asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[EngineClient]:
    door = Door(settings)
    server = await listen(settings.engine_socket, door.handle)
    yield EngineClient(settings.engine_socket)
    await door.drain(0.0)
    await server.close()


def told(settings: Settings, story: Callable[[EngineClient], Awaitable[None]]) -> None:
    async def go() -> None:
        async with engine(settings) as client:
            await story(client)

    asyncio.run(go())


async def ask(client: EngineClient, base: str, tune: str | None = None) -> None:
    asked = Generate(f"{base} {tune}", base, [3, 4, 5], 3, 0, adapter=tune)
    lines = [line async for line in client.generate(asked)]
    assert isinstance(lines[-1], Final)


def test_bases_stay_while_there_is_memory(settings: Settings, memory: Memory) -> None:
    async def story(client: EngineClient) -> None:
        await ask(client, "tiny")
        await ask(client, "other")
        assert sorted((await client.health()).bases) == ["other", "tiny"]

    assert memory.free == PLENTY
    told(settings, story)


def test_an_idle_base_makes_room_and_comes_back_when_it_is_asked(
    settings: Settings, memory: Memory
) -> None:
    memory.free = 0

    async def story(client: EngineClient) -> None:
        for base in ("tiny", "other", "tiny"):
            await ask(client, base)
            assert (await client.health()).bases == [base]

    told(settings, story)


def test_tunes_with_weights_of_their_own_go_with_their_base(
    settings: Settings, memory: Memory
) -> None:
    record = decode(BaseModel, json.loads((settings.models / "tiny" / "afina.json").read_text()))
    tune = put_own(settings, record, "blocks", 1, ("model.layers.1.",))

    async def story(client: EngineClient) -> None:
        await ask(client, "tiny", tune)
        assert (await client.health()).adapters == [tune]
        memory.free = 0
        await ask(client, "other")
        found = await client.health()
        assert (found.bases, found.adapters) == (["other"], [])
        memory.free = PLENTY
        await ask(client, "tiny", tune)

    told(settings, story)


def test_a_base_that_answers_stays_and_one_without_room_is_told_to_come_back(
    settings: Settings, memory: Memory
) -> None:
    async def story(client: EngineClient) -> None:
        long = Generate("long", "tiny", [3, 4, 5], 4000, 0)
        async with aclosing(client.generate(long)) as lines:
            await anext(lines)
            memory.free = 0
            with pytest.raises(Overloaded, match=r"'other' takes 0\.0 GB of memory") as refused:
                await ask(client, "other")
            assert refused.value.retry_after_s
            assert (await client.health()).bases == ["tiny"]
        while "tiny" in (await client.health()).bases:
            try:
                await ask(client, "other")
            except Overloaded:
                continue

    told(settings, story)


def test_a_base_that_is_not_there_sends_nobody_away(settings: Settings, memory: Memory) -> None:
    async def story(client: EngineClient) -> None:
        await ask(client, "tiny")
        memory.free = 0
        with pytest.raises(ModelNotFound):
            await ask(client, "nowhere")
        assert (await client.health()).bases == ["tiny"]

    told(settings, story)


def test_many_who_ask_for_one_base_load_it_once(settings: Settings, memory: Memory) -> None:
    memory.free = 0

    async def story(client: EngineClient) -> None:
        await ask(client, "tiny")
        asked = [Generate(f"r{n}", "other", [3, 4, 5], 3, 0) for n in range(8)]

        async def all_of(one: Generate) -> list[object]:
            return [line async for line in client.generate(one)]

        answers = await asyncio.gather(*map(all_of, asked))
        assert all(isinstance(lines[-1], Final) for lines in answers)
        assert (await client.health()).bases == ["other"]

    told(settings, story)
