"""The client against the scripted engine: the same protocol over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from afina.errors import ContextTooLong, EngineFailed, Overloaded, Unavailable
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Delta, Final, Generate, Score, UsageRecord
from afina.serving.testing import Script, ScriptedEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(tmp_path / "e.sock", tmp_path / "usage.jsonl") as running:
        yield running


def ask(name: str = "r1", **more: object) -> Generate:
    request = Generate(name, "base", [1, 2, 3], 50, 0)
    for field, value in more.items():
        setattr(request, field, value)
    return request


async def collect(path: Path, request: Generate) -> list[Delta | Final]:
    return [line async for line in EngineClient(path).generate(request)]


def run(path: Path, request: Generate) -> list[Delta | Final]:
    return asyncio.run(collect(path, request))


def test_an_answer_comes_as_deltas_and_one_final(engine: ScriptedEngine) -> None:
    engine.script = Script("Good morrow to thee.")
    *deltas, final = run(engine.socket_path, ask())
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == "Good morrow to thee."
    assert final == Final(3, 0, 4)


def test_usage_is_in_the_journal_before_the_final_line(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    run(engine.socket_path, ask("metered", tag={"key": "k"}))
    record = msgspec.json.decode((tmp_path / "usage.jsonl").read_bytes(), type=UsageRecord)
    assert (record.request_id, record.outcome, record.tag) == ("metered", "finished", {"key": "k"})


def test_no_engine_is_unavailable_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        run(tmp_path / "none.sock", ask())
    assert caught.value.remedy
    # So long that clients which try again find it restarted.
    assert caught.value.retry_after_s == 5.0
    with pytest.raises(Unavailable):
        BlockingEngineClient(tmp_path / "none.sock").health()


def test_a_refusal_is_the_error_that_the_engine_named(engine: ScriptedEngine) -> None:
    engine.script = Script(refusal=Overloaded("full", remedy="later", retry_after_s=2.5))
    with pytest.raises(Overloaded) as caught:
        run(engine.socket_path, ask())
    assert (caught.value.message, caught.value.remedy) == ("full", "later")
    assert caught.value.retry_after_s == 2.5
    engine.script = Script(refusal=ContextTooLong("too long", param="messages"))
    with pytest.raises(ContextTooLong) as other:
        run(engine.socket_path, ask())
    assert other.value.param == "messages"


def test_a_stream_that_breaks_off_raises_and_never_looks_whole(engine: ScriptedEngine) -> None:
    engine.script = Script("one two three", cut_after=2)
    with pytest.raises(EngineFailed):
        run(engine.socket_path, ask())


def test_a_failure_line_in_a_stream_raises(engine: ScriptedEngine) -> None:
    engine.script = Script("one two", failure=EngineFailed("broke"))
    with pytest.raises(EngineFailed, match="broke"):
        run(engine.socket_path, ask())


def test_leaving_a_stream_early_is_told_to_the_engine(engine: ScriptedEngine) -> None:
    hold = threading.Event()
    engine.script = Script("one two three", hold=hold)

    async def leave() -> None:
        client = EngineClient(engine.socket_path)
        async with contextlib.aclosing(client.generate(ask("early"))) as lines:
            async for _ in lines:
                break
        async with asyncio.timeout(5):
            while "early" not in engine.left:
                await client.health()

    asyncio.run(leave())
    assert engine.left == ["early"]


def test_many_streams_share_one_loop(engine: ScriptedEngine) -> None:
    engine.script = lambda request: Script(f"answer for {request.request_id}")

    async def all_of_them() -> list[list[Delta | Final]]:
        asked = [collect(engine.socket_path, ask(f"r{i}")) for i in range(32)]
        return await asyncio.gather(*asked)

    for i, lines in enumerate(asyncio.run(all_of_them())):
        text = "".join(line.text for line in lines if isinstance(line, Delta))
        assert text == f"answer for r{i}"


def test_the_blocking_client_speaks_the_same_protocol(engine: ScriptedEngine) -> None:
    client = BlockingEngineClient(engine.socket_path)
    assert client.health().status == "ok"
    client.set_trainers(1, 5.0)
    assert (engine.trainers[0].count, engine.trainers[0].ttl_s) == (1, 5.0)
    client.forget("a" * 64)
    assert engine.forgotten == ["a" * 64]
    assert client.score(Score("base", [1], [2, 3])).logprobs == [-0.25, -0.25]


def test_a_second_engine_on_the_same_socket_is_refused(engine: ScriptedEngine) -> None:
    with pytest.raises(Unavailable, match="already running"), ScriptedEngine(engine.socket_path):
        pass


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with ScriptedEngine(tmp_path / "e.sock"):
        pass
    (tmp_path / "e.sock").write_text("")
    with ScriptedEngine(tmp_path / "e.sock") as engine:
        assert BlockingEngineClient(engine.socket_path).health().status == "ok"
        assert (tmp_path / "e.sock").stat().st_mode & 0o777 == 0o600


def test_a_connection_in_the_last_moment_is_closed_too(tmp_path: Path) -> None:
    """Whoever looks whether an engine is there, just when it ends, leaves nothing open behind."""
    for number in range(60):
        with ScriptedEngine(tmp_path / "e.sock") as engine:
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            probe.connect(str(engine.socket_path))
            probe.close()
        assert not engine.socket_path.exists(), number
    gc.collect()
