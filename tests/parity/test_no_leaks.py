"""An adapter's answer never appears under another, whatever is loaded, forgotten or put back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.engine_rig import make_data, put_adapter

from afina.domain.manifests import blob_path
from afina.serving.client import EngineClient
from afina.serving.listener import listen
from afina.serving.protocol import Delta, Generate
from afina.serving.server import Door
from afina.settings import Settings

RESIDENT = 4
ADAPTERS = 12
AT_ONCE = 24
PROMPTS = [random.Random(n).choices(range(3, 250), k=n) for n in (3, 20, 33, 64)]


class Asking:
    """Asks the engine and remembers what each adapter answers when it is alone."""

    def __init__(self, settings: Settings) -> None:
        self.client = EngineClient(settings.engine_socket)
        self.alone: dict[tuple[str | None, int], list[int]] = {}
        self._count = 0

    async def answer(self, adapter: str | None, prompt: int) -> list[int]:
        self._count += 1
        request = Generate(
            request_id=f"r{self._count}",
            base="tiny",
            prompt=PROMPTS[prompt],
            max_tokens=6,
            seed=0,
            adapter=adapter,
            namespace=f"project-{self._count % 3}",
            temperature=0.0,
        )
        ids: list[int] = []
        async for line in self.client.generate(request):
            if isinstance(line, Delta):
                ids += line.ids
        return ids

    async def learn(self, names: list[str | None]) -> None:
        for name in names:
            for prompt in range(len(PROMPTS)):
                self.alone[name, prompt] = await self.answer(name, prompt)
        for prompt in range(len(PROMPTS)):
            told = {tuple(self.alone[name, prompt]) for name in names}
            assert len(told) == len(names), "every adapter says something of its own"


async def disturb(settings: Settings, asking: Asking, names: list[str], done: asyncio.Event) -> int:
    """Forgets adapters and replaces their manifests' files, as long as others ask."""
    rng = random.Random(1)
    count = 0
    while not done.is_set():
        name = rng.choice(names)
        await asking.client.forget(name)
        count += 1
        path = blob_path(settings.blobs, rng.choice(names))
        raw = path.read_bytes()
        path.with_suffix(".again").write_bytes(raw)
        path.with_suffix(".again").replace(path)
    return count


async def leaks(settings: Settings, names: list[str], requests: int) -> int:
    door = Door(settings)
    server = await listen(settings.engine_socket, door.handle)
    asking = Asking(settings)
    everyone: list[str | None] = [None, *names]
    await asking.learn(everyone)
    rng = random.Random(2)
    work = [(rng.choice(everyone), rng.randrange(len(PROMPTS))) for _ in range(requests)]
    wrong = 0
    done = asyncio.Event()
    disturbing = asyncio.ensure_future(disturb(settings, asking, names, done))

    async def ask_in_turn() -> None:
        nonlocal wrong
        while work:
            name, prompt = work.pop()
            wrong += await asking.answer(name, prompt) != asking.alone[name, prompt]

    await asyncio.gather(*(ask_in_turn() for _ in range(AT_ONCE)))
    done.set()
    assert await disturbing > 5
    assert len((await asking.client.health()).adapters) <= RESIDENT
    await door.drain(5.0)
    await server.close()
    return wrong


@pytest.mark.parametrize(
    "requests", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_no_answer_of_an_adapter_appears_under_another(tmp_path: Path, requests: int) -> None:
    # In bf16 an answer has the same bits in any company, so that equality is the law to check.
    settings, record = make_data(
        tmp_path, "bf16", hidden_size=128, intermediate_size=256, head_dim=32
    )
    engine = settings.engine.model_copy(update={"adapters_resident": RESIDENT})
    settings = settings.model_copy(update={"engine": engine})
    names = [
        put_adapter(settings, record, seed, rank=(8, 16, 24)[seed % 3], strength=2.0)
        for seed in range(ADAPTERS)
    ]
    assert asyncio.run(leaks(settings, names, requests)) == 0
