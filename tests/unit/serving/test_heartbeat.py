"""Busy is not hung: a step that computes, a rest, and a loop without work are left alone; a step
that stands still fails every stream with an error."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.engine_rig import make_data

from afina.domain.clock import ManualClock
from afina.errors import EngineFailed, Unavailable
from afina.serving import heartbeat
from afina.serving.client import EngineClient
from afina.serving.heartbeat import PATIENCE, StepWatch, Turn
from afina.serving.listener import listen
from afina.serving.protocol import Generate
from afina.serving.runner import Runner
from afina.serving.server import Door
from afina.settings import Settings

LIMIT_S = 30.0


@dataclass
class Loop:
    """A step loop as the watch sees it."""

    done: int = 0
    at_work: bool = True
    processor_s: float = 0.0

    def watch(self, clock: ManualClock, limit_s: float = LIMIT_S) -> StepWatch:
        return StepWatch(
            lambda: Turn(self.done, self.at_work), lambda: self.processor_s, limit_s, clock
        )

    def look_for(
        self, seconds: int, watch: StepWatch, clock: ManualClock, use: float
    ) -> str | None:
        for _ in range(seconds):
            clock.advance(1.0)
            self.processor_s += use
            found = watch.look()
            if found is not None:
                return found
        return None


def test_a_step_that_uses_no_processor_is_hung_after_the_limit() -> None:
    clock, loop = ManualClock(), Loop()
    watch = loop.watch(clock)
    assert loop.look_for(30, watch, clock, use=0.0) is None
    assert loop.look_for(2, watch, clock, use=0.0) == "a step has used no processor time for 30 s"


def test_a_long_step_that_computes_is_left_alone_for_as_long_as_clients_wait() -> None:
    clock, loop = ManualClock(), Loop()
    watch = loop.watch(clock)
    assert loop.look_for(PATIENCE * 30, watch, clock, use=0.1) is None
    assert watch.step_s == pytest.approx(PATIENCE * 30 - 1)
    assert "has taken 600 s" in (loop.look_for(2, watch, clock, use=0.1) or "")


def test_a_loop_without_work_is_never_hung() -> None:
    clock, loop = ManualClock(), Loop(at_work=False)
    watch = loop.watch(clock)
    assert loop.look_for(10_000, watch, clock, use=0.0) is None
    assert watch.step_s == 0.0


def test_each_step_begins_anew() -> None:
    clock, loop = ManualClock(), Loop()
    watch = loop.watch(clock)
    for _ in range(20):
        assert loop.look_for(29, watch, clock, use=0.0) is None
        loop.done += 1


def test_no_limit_means_that_nothing_is_hung() -> None:
    clock, loop = ManualClock(), Loop()
    assert loop.look_for(10_000, loop.watch(clock, limit_s=0.0), clock, use=0.0) is None


def test_a_step_that_stands_still_fails_every_stream_and_what_comes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = make_data(tmp_path)
    settings = Settings.load(data=tmp_path, engine=made.engine.model_copy(update=_soon()))
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.02)
    run, stuck, steps = Runner.run, threading.Event(), iter(range(10**6))

    def stands_still(self: Runner, plan: object) -> object:
        if next(steps) == 4:
            stuck.wait(60)
        return run(self, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "run", stands_still)

    async def ask(client: EngineClient, name: str) -> None:
        with pytest.raises(EngineFailed, match="stood still"):
            async for _ in client.generate(Generate(name, "tiny", [3, 4], 400, 0)):
                pass

    async def story() -> str:
        door = Door(settings)
        server = await listen(settings.engine_socket, door.handle)
        looking = asyncio.ensure_future(heartbeat.beat(None, door.look))
        client = EngineClient(settings.engine_socket)
        await asyncio.gather(*(ask(client, f"r{i}") for i in range(3)))
        with pytest.raises(Unavailable):
            await anext(client.generate(Generate("late", "tiny", [3, 4], 4, 0)))
        looking.cancel()
        stuck.set()
        await server.close()
        await door.drain(0.0)
        return await door.hung

    assert "no processor time" in asyncio.run(story())


def _soon() -> dict[str, float]:
    return {"hung_after_s": 0.5}
