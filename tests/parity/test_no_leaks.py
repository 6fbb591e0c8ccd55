"""An adapter's answer never appears under another, whatever is loaded, deleted or replaced.

Each tune was trained to say its own name. Requests for names come mixed and together, more names
than there is room in memory, while others let the engine forget tunes, delete their files, put them
back, and give a name to another tune. A client asks for what a name meant when it asked.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from tests.engine_rig import make_data, put_blob
from tests.named_adapters import NAME_TOKENS, Teacher

from afina.domain.manifests import Manifest, blob_path
from afina.domain.models import BaseModel
from afina.errors import AfinaError, ModelNotFound
from afina.serving.client import EngineClient
from afina.serving.listener import listen
from afina.serving.protocol import Delta, Final, Generate, UsageRecord
from afina.serving.server import Door
from afina.settings import Settings

RESIDENT = 4
TUNES = 10
NAMES = 7
AT_ONCE = 24
PROMPTS = [random.Random(n).choices(range(3, 250), k=n) for n in (3, 20, 33, 64)]


class World:
    """Tunes, the names they answer to now, and what clients were told."""

    def __init__(self, settings: Settings, said: dict[str, list[int]]) -> None:
        self.settings = settings
        self.client = EngineClient(settings.engine_socket)
        self.said = said
        """What each tune says, by its manifest's hash."""
        self.meant = dict(enumerate(list(said)[:NAMES]))
        self.told: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.base: dict[int, list[int]] = {}
        self._count = 0

    async def ask(self, tune: str | None, prompt: int) -> list[int]:
        """An answer; every request ends in one final line, or in a refusal."""
        self._count += 1
        request = Generate(
            request_id=f"r{self._count}",
            base="tiny",
            prompt=PROMPTS[prompt],
            max_tokens=NAME_TOKENS,
            seed=0,
            adapter=tune,
            namespace=f"project-{self._count % 3}",
            temperature=0.0,
            background=self._count % 5 == 0,
        )
        ids: list[int] = []
        finals = 0
        async with aclosing(self.client.generate(request)) as lines:
            async for line in lines:
                ids += line.ids if isinstance(line, Delta) else []
                finals += isinstance(line, Final)
        assert finals == 1
        return ids

    async def client_at_work(self, work: list[tuple[int | None, int]]) -> None:
        while work:
            name, prompt = work.pop()
            tune = None if name is None else self.meant[name]
            try:
                ids = await self.ask(tune, prompt)
            except ModelNotFound:
                self.told["deleted"] += 1
                continue
            wanted = self.base[prompt] if tune is None else self.said[tune]
            self.told["right" if ids == wanted else "wrong"] += 1

    async def disturb(self, done: asyncio.Event) -> None:
        """Changes something, as long as others ask."""
        rng = random.Random(1)
        away: list[str] = []
        while not done.is_set():
            tune = rng.choice(list(self.said))
            path = blob_path(self.settings.blobs, tune)
            match rng.randrange(4):
                case 0:
                    self.changes["forgotten"] += 1
                case 1 if len(away) < 3 and tune not in away:
                    path.rename(path.with_suffix(".away"))
                    away.append(tune)
                    self.changes["deleted"] += 1
                case 2 if away:
                    tune = away.pop(0)
                    path = blob_path(self.settings.blobs, tune)
                    path.with_suffix(".away").rename(path)
                    self.changes["put back"] += 1
                case _:
                    name = rng.randrange(NAMES)
                    tune, self.meant[name] = self.meant[name], tune
                    self.changes["replaced"] += 1
            await self.client.forget(tune)
            await asyncio.sleep(0)


def teach(settings: Settings, record: BaseModel) -> dict[str, list[int]]:
    """Tunes that say their names, by their manifests' hashes."""
    teacher = Teacher(settings.models / record.id, PROMPTS)
    found = {}
    for number in range(TUNES):
        name = random.Random(100 + number).choices(range(3, 250), k=NAME_TOKENS)
        files = teacher.teach(name, rank=(8, 16, 24)[number % 3], seed=number)
        blobs = {file: put_blob(settings, raw) for file, raw in files.items()}
        manifest = Manifest("lora", record.id, record.sha256, blobs, "t" * 64, "d" * 64)
        found[put_blob(settings, manifest.to_bytes())] = name
    return found


async def mixed(world: World, requests: int) -> Door:
    """Answers everything, and gives the drained door."""
    door = Door(world.settings)
    server = await listen(world.settings.engine_socket, door.handle)
    for prompt in range(len(PROMPTS)):
        world.base[prompt] = await world.ask(None, prompt)
        for tune, name in world.said.items():
            assert await world.ask(tune, prompt) == name, "a tune says its name when it is alone"
    rng = random.Random(2)
    names = [None, *range(NAMES)]
    work = [(rng.choice(names), rng.randrange(len(PROMPTS))) for _ in range(requests)]
    done = asyncio.Event()
    disturbing = asyncio.ensure_future(world.disturb(done))
    await asyncio.gather(*(world.client_at_work(work) for _ in range(AT_ONCE)))
    done.set()
    await disturbing
    assert len((await world.client.health()).adapters) <= RESIDENT
    await door.drain(5.0)
    await server.close()
    return door


def check_nothing_is_held(door: Door) -> None:
    """No block, page, reference or visit is left once all requests have ended."""
    assert not door._visits
    assert not door._holdings._residency._alive
    assert not door._holdings._loading
    (lane,) = door._holdings.lanes
    blocks, bank, pages = lane.scheduler._blocks, lane.runner.bank, lane.runner.bank.pages
    assert lane.is_idle
    assert lane.scheduler.is_idle
    assert blocks.total - blocks.free == len(lane.scheduler.prefixes)
    lane.scheduler.prefixes.let_go(blocks.total)
    assert blocks.free == blocks.total
    assert not +bank._references
    assert pages is not None
    held = [page for own in pages._pages.values() for page in own]
    assert sorted(pages._pages) == sorted(bank.resident)
    assert sorted(held + pages._free) == list(range(pages._total))


@pytest.mark.parametrize(
    "requests", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_no_answer_of_a_tune_appears_under_another_name(tmp_path: Path, requests: int) -> None:
    settings, record = make_data(
        tmp_path, "bf16", hidden_size=128, intermediate_size=256, head_dim=32
    )
    engine = settings.engine.model_copy(update={"adapters_resident": RESIDENT})
    settings = settings.model_copy(update={"engine": engine})
    world = World(settings, teach(settings, record))
    try:
        door = asyncio.run(mixed(world, requests))
    except AfinaError as error:
        raise AssertionError(f"a request was refused: {error.one_line()}") from None
    told, changes = dict(world.told), dict(world.changes)
    sys.stdout.write(f"{requests} requests: {told}; meanwhile {changes}\n")
    assert world.told["wrong"] == 0
    assert world.told["right"] + world.told["deleted"] == requests
    assert world.told["right"] > requests / 2
    assert len(world.changes) == 4
    check_nothing_is_held(door)
    records = [
        msgspec.json.decode(line, type=UsageRecord)
        for line in settings.journal.read_bytes().splitlines()
    ]
    alone = (TUNES + 1) * len(PROMPTS)
    assert len(records) == len({r.request_id for r in records}) == world.told["right"] + alone
    assert {r.outcome for r in records} == {"finished"}
