"""afina through a real vLLM server: what the fake of the quick ring claims, asked of the thing itself,
and the contract of the wire API, asked by the official client."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import pytest
from tests.contract.test_walk import walk
from tests.engine_rig import put_adapter
from tests.live import LivePlatform, wait_until

from afina.domain.codec import decode
from afina.domain.models import BaseModel
from afina.errors import BaseRefused, ContextTooLong, UnsupportedField
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Delta, Generate, Score, Scored
from afina.serving.protocol import Final as Last
from afina.settings import OFFLINE, Settings, child_environment
from afina.text.renderer import Renderer

pytestmark = [pytest.mark.slow, pytest.mark.starter, pytest.mark.timeout(1200)]
STARTER: Final = "smollm2-135m-instruct"
ASKED: Final[Any] = [{"role": "user", "content": "Name three colours of the rainbow."}]
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green", "blue"]},
        "count": {"type": "integer"},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}
WEATHER: Final[Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def adapters_at(url: str) -> list[str]:
    """The adapters that the server lists."""
    data = httpx2.get(f"{url}/v1/models").json()["data"]
    return [card["id"] for card in data if card["parent"]]


def running_at(url: str) -> float:
    """The requests that it is answering."""
    told = httpx2.get(f"{url}/metrics").text
    return sum(float(n) for n in re.findall(r"^vllm:num_requests_running\S* (\S+)", told, re.M))


def settings_of(platform: LivePlatform) -> Settings:
    return Settings.load(data=platform.data)


def record_of(platform: LivePlatform) -> BaseModel:
    path = platform.data / "models" / STARTER / "afina.json"
    return decode(BaseModel, json.loads(path.read_text()), "afina.json")


def prompt(platform: LivePlatform, text: str) -> list[int]:
    renderer = Renderer.load(platform.data / "models" / STARTER)
    return renderer.prompt([{"role": "user", "content": text}])


def test_a_chat_is_the_same_whole_and_streamed(client: openai.OpenAI) -> None:
    how: Any = {"model": STARTER, "messages": ASKED, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**how, n=2, logprobs=True, top_logprobs=3)
    chunks = list(client.chat.completions.create(
        **how, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content == whole.choices[1].message.content
    assert said
    told: Any = whole.choices[0].logprobs
    assert all(len(place.top_logprobs) == 3 for place in told.content)
    assert all(place.token == place.top_logprobs[0].token for place in told.content)
    assert "".join(place.token for place in told.content) == said
    usage: Any = chunks[-1].usage
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def test_seeds_stops_and_limits_are_kept(client: openai.OpenAI) -> None:
    how: Any = {"model": STARTER, "messages": ASKED, "max_tokens": 16, "temperature": 1.0}
    drawn = [client.chat.completions.create(**how, seed=seed) for seed in (5, 5, 6)]
    texts = [answer.choices[0].message.content for answer in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert drawn[0].usage.completion_tokens <= 16
    listed = client.chat.completions.create(
        model=STARTER, messages=ASKED, max_tokens=40, temperature=0
    )
    text = str(listed.choices[0].message.content)
    stop = text[len(text) // 2 :][:4]
    ended = client.chat.completions.create(
        model=STARTER, messages=ASKED, max_tokens=40, temperature=0, stop=[stop]
    )
    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].message.content == text[: text.index(stop)]


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_schemas_and_calls_are_held_by_vllm(client: openai.OpenAI, temperature: float) -> None:
    form: Any = {"name": "c", "schema": SCHEMA, "strict": True}
    answer = client.chat.completions.create(
        model=STARTER, messages=ASKED, temperature=temperature, max_tokens=60, seed=3, n=1,
        response_format={"type": "json_schema", "json_schema": form},
    )  # fmt: skip
    found = json.loads(str(answer.choices[0].message.content))
    assert set(found) == {"colour", "count"}
    assert found["colour"] in {"red", "green", "blue"}
    assert answer.choices[0].finish_reason == "stop"
    called = client.chat.completions.create(
        model=STARTER, messages=ASKED, temperature=temperature, max_tokens=80, seed=3,
        tools=[WEATHER], tool_choice="required",
    )  # fmt: skip
    (call, *_) = called.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["city"] in {"Rome", "Oslo"}  # type: ignore[union-attr]


def test_completions_echo_with_log_probabilities(client: openai.OpenAI) -> None:
    asked = "Paris is the capital of"
    found = client.completions.create(
        model=STARTER, prompt=asked, max_tokens=3, temperature=0, echo=True, logprobs=2
    )
    told: Any = found.choices[0].logprobs
    assert found.choices[0].text.startswith(asked)
    assert "".join(told.tokens) == found.choices[0].text
    assert told.token_logprobs[0] is None
    assert all(value <= 0 for value in told.token_logprobs[1:])


def test_what_is_used_stands_in_the_ledger_once(platform: LivePlatform) -> None:
    """Once what was asked before is there: the ledger follows the engine's journal at a distance."""
    journal = settings_of(platform).journal

    def stands() -> int:
        return completion(platform.patiently("GET", "/v1/afina/usage").json)

    def noted() -> int:
        lines = journal.read_bytes().splitlines() if journal.exists() else []
        records = [json.loads(line) for line in lines]
        return sum(r["completion_tokens"] for r in records if r["tag"])

    wait_until("the ledger has what was asked before", lambda: stands() == noted(), 60)
    before = stands()
    used = platform.chat(STARTER, tokens=5).json["usage"]["completion_tokens"]
    wait_until("the ledger has it", lambda: stands() - before == used, 60)
    assert noted() - before == used


def completion(report: dict[str, Any]) -> int:
    rows = report.get("data", report.get("rows", []))
    return sum(row.get("completion_tokens", 0) for row in rows)


def test_a_client_that_leaves_frees_its_place_at_vllm(
    client: openai.OpenAI, vllm_url: str, record_property: Callable[[str, object], None]
) -> None:
    stream = client.chat.completions.create(
        model=STARTER, messages=ASKED, max_tokens=1900, temperature=1.0, seed=1, stream=True,
        logit_bias={"2": -100},
    )  # fmt: skip
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    assert running_at(vllm_url) == 1
    begun = time.monotonic()
    stream.close()
    wait_until("vLLM lets go of it", lambda: running_at(vllm_url) == 0, 20)
    record_property("freed_after_s", time.monotonic() - begun)


def test_what_does_not_fit_is_refused_by_name(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=STARTER, messages=long)
    assert caught.value.code == "context_length_exceeded"


def test_an_adapter_computes_there_what_it_computes_here(
    platform: LivePlatform,
    vllm_url: str,
    starter_dir: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Log-probabilities of forced ids by vLLM and by afina's own engine, on the same two files."""
    settings, record = settings_of(platform), record_of(platform)
    tunes = [None, *(put_adapter(settings, record, seed, rank=8, strength=0.5) for seed in (1, 2))]
    asked = prompt(platform, "Write about the sea.")
    ids = prompt(platform, "The sea is wide.")[3:11]
    behind = BlockingEngineClient(settings.engine_socket)
    theirs = [behind.score(Score(STARTER, asked, ids, adapter=tune)) for tune in tunes]
    assert {score.engine.split()[0] for score in theirs} == {"vllm"}
    assert set(adapters_at(vllm_url)) >= {f"afina-{tune}" for tune in tunes if tune}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / STARTER).symlink_to(starter_dir)
    (tmp_path / "blobs").symlink_to(settings.blobs)
    alone = Settings.load(data=tmp_path)
    words = [sys.executable, "-m", "afina.serving", "--data", str(tmp_path)]
    with subprocess.Popen(words, env=child_environment(**OFFLINE)) as process:
        try:
            own = BlockingEngineClient(alone.engine_socket)
            wait_until("the engine is there", lambda: alone.engine_socket.exists())
            ours = [own.score(Score(STARTER, asked, ids, adapter=tune)) for tune in tunes]
        finally:
            process.terminate()
    for mine, its in zip(ours, theirs, strict=True):
        record_property("mean_kl", divergence(mine, its))
        # Two roundings of bf16 on a few places (0.009 seen); the wrong tune is off by 0.5 and more.
        assert abs(divergence(mine, its)) < 0.03
        assert agreement(mine, its) > 0.6
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert divergence(ours[one], theirs[other]) > 0.3
    for tune in tunes[1:]:
        assert tune is not None
        behind.forget(tune)
    wait_until("vLLM has lost them", lambda: not adapters_at(vllm_url), 30)


def divergence(ours: Scored, theirs: Scored) -> float:
    """Mean KL over the candidates that both tell, in nats."""
    found = []
    for place in range(len(ours.logprobs)):
        p = dict(zip(ours.top_ids[place], ours.top_logprobs[place], strict=True))
        q = dict(zip(theirs.top_ids[place], theirs.top_logprobs[place], strict=True))
        least = min(q.values())
        found.append(sum(math.exp(v) * (v - q.get(id, least)) for id, v in p.items()))
    return sum(found) / len(found)


def agreement(ours: Scored, theirs: Scored) -> float:
    """Share of places with the same first choice, or with two that are as likely."""
    same = 0
    for place in range(len(ours.logprobs)):
        first = ours.top_ids[place][0]
        other = dict(zip(theirs.top_ids[place], theirs.top_logprobs[place], strict=True))
        same += other.get(first, -99.0) >= max(other.values()) - 0.1
    return same / len(ours.logprobs)


def test_forty_streams_over_twenty_tunes_are_each_answered_by_their_own(
    platform: LivePlatform, vllm_url: str, record_property: Callable[[str, object], None]
) -> None:
    """More tunes than vLLM computes with at once, at the same time, each answer as it is alone."""
    settings, record = settings_of(platform), record_of(platform)
    tunes = [put_adapter(settings, record, 30 + n, rank=4, strength=0.5) for n in range(20)]
    asked = prompt(platform, "Say something.")

    async def answer(tune: str, name: str) -> tuple[str, int]:
        request = Generate(name, STARTER, asked, 4, 1, adapter=tune, temperature=0.0)
        lines = [line async for line in EngineClient(settings.engine_socket).generate(request)]
        text = "".join(line.text for line in lines if isinstance(line, Delta))
        return text, sum(isinstance(line, Last) for line in lines)

    async def story() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        alone = [await answer(tune, f"alone-{i}") for i, tune in enumerate(tunes)]
        crowd = [answer(tune, f"crowd-{i}") for i, tune in enumerate(tunes * 2)]
        return alone, await asyncio.gather(*crowd)

    alone, crowd = asyncio.run(story())
    assert all(finals == 1 for _, finals in [*alone, *crowd])
    same = sum(crowd[i] == alone[i % len(tunes)] for i in range(len(crowd)))
    record_property("same_in_company", f"{same} of {len(crowd)}")
    # vLLM does not promise the same bits in company (docs/vllm.md); another tune's answer would
    # differ from the first word on.
    assert len({text for text, _ in alone}) >= 8
    assert same >= 0.8 * len(crowd)
    client = BlockingEngineClient(settings.engine_socket)
    for tune in tunes:
        client.forget(tune)
    wait_until("vLLM has lost them", lambda: not adapters_at(vllm_url), 60)


def test_refusals_of_vllm_are_typed(platform: LivePlatform) -> None:
    settings, record = settings_of(platform), record_of(platform)
    engine = EngineClient(settings.engine_socket)
    asked = prompt(platform, "Hello.")

    async def ask(**more: Any) -> None:
        request = Generate("refused", STARTER, asked, 4, 0, **more)
        async for _ in engine.generate(request):
            pass

    with pytest.raises(UnsupportedField) as caught:
        asyncio.run(ask(grammar="%llguidance {}\nstart: (\n", end_tokens=[2]))
    assert caught.value.param == "response_format"
    wide = put_adapter(settings, record, 60, rank=128)
    with pytest.raises(BaseRefused, match="rank"):
        asyncio.run(ask(adapter=wide))
    with pytest.raises(ContextTooLong):
        asyncio.run(ask_long(engine, asked))


async def ask_long(engine: EngineClient, asked: list[int]) -> None:
    async for _ in engine.generate(Generate("long", STARTER, asked, 100_000, 0)):
        pass


def test_the_client_walks_the_whole_road_and_the_proof_says_who_answered(
    platform: LivePlatform, vllm_url: str
) -> None:
    """Upload, tune, parity, ask, delete; then vLLM has nothing left of it."""
    assert "done:" in walk(sys.executable, platform, STARTER)
    wait_until("vLLM has lost its adapters", lambda: not adapters_at(vllm_url), 60)
