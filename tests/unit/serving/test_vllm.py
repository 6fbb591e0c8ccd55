"""A vLLM server behind the engine's door: the same protocol and promises as without it.

The server is the fake that the package ships (`afina.serving.vllm.testing`), whose answers were
recorded from vLLM; `tests/vllm` asks a real one the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from llguidance import LLMatcher
from safetensors import safe_open
from tests.engine_rig import make_data, put_adapter, put_blob, put_own

from afina.domain.manifests import Manifest, blob_path
from afina.domain.models import BaseModel
from afina.errors import (
    AfinaError,
    BaseRefused,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    Unavailable,
    UnsupportedField,
)
from afina.model.peft_files import CONFIG, WEIGHTS
from afina.outside_settings import VllmSettings
from afina.serving.answers import Candidates, GeneratedAnswer
from afina.serving.client import EngineClient
from afina.serving.listener import listen
from afina.serving.protocol import Delta, EngineHealth, Final, Generate, Score, UsageRecord
from afina.serving.server import Door
from afina.serving.vllm.testing import ScriptedVllm, Trouble
from afina.settings import Settings
from afina.text.grammars import schema_grammar
from afina.text.tokenizer import ChatTokenizer

END = 2
Story = Callable[[EngineClient, Door], Awaitable[Any]]


class Rig:
    """A data directory with the base `tiny`, and the fake server that answers for it."""

    def __init__(self, settings: Settings, record: BaseModel, vllm: ScriptedVllm) -> None:
        self.plain = settings
        self.record = record
        self.vllm = vllm
        self.tokenizer = ChatTokenizer.load(settings.models / record.id)

    def settings(self, **engine: Any) -> Settings:
        vllm = VllmSettings(url=f"{self.vllm.url}/v1", key=self.vllm.key)
        told = self.plain.engine.model_copy(update={"vllm": vllm, **engine})
        return self.plain.model_copy(update={"engine": told})

    def run(self, story: Story, settings: Settings | None = None) -> Any:
        async def whole() -> Any:
            async with engine(settings or self.settings()) as (client, door):
                return await story(client, door)

        return asyncio.run(whole())

    def journal(self) -> list[UsageRecord]:
        path = self.plain.journal
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [msgspec.json.decode(line, type=UsageRecord) for line in lines]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)


@contextlib.asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[tuple[EngineClient, Door]]:
    door = Door(settings)
    server = await listen(settings.engine_socket, door.handle)
    try:
        yield EngineClient(settings.engine_socket), door
    finally:
        await door.drain(0.0)
        await server.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    settings, record = make_data(tmp_path / "data")
    tokenizer = ChatTokenizer.load(settings.models / record.id)
    with ScriptedVllm({"tiny": tokenizer}) as vllm:
        yield Rig(settings, record, vllm)


def ask(name: str = "r1", **more: Any) -> Generate:
    request = Generate(name, "tiny", [40, 41, 42], 8, 7, end_tokens=[END])
    for field, value in more.items():
        setattr(request, field, value)
    return request


async def collect(client: EngineClient, request: Generate) -> list[Delta | Final]:
    return [line async for line in client.generate(request)]


def said(lines: list[Delta | Final], choice: int = 0) -> str:
    return "".join(x.text for x in lines if isinstance(x, Delta) and x.choice == choice)


def ids_of(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_tokens_become_text_here_and_usage_is_noted_before_the_last_line(rig: Rig) -> None:
    tokens = [*ids_of(rig.tokenizer, "the quick brown fox"), END]
    rig.vllm.says = lambda _: tokens
    seen: list[int] = []

    async def story(client: EngineClient, _: Door) -> list[Delta | Final]:
        lines = []
        async for line in client.generate(ask(max_tokens=50, tag={"key": "k"})):
            lines.append(line)
            seen.append(len(rig.journal()))
        return lines

    *deltas, last = rig.run(story)
    assert said(deltas) == "the quick brown fox"
    assert [d.finish for d in deltas if d.finish] == ["stop"]
    assert last == Final(3, 0, len(tokens))
    assert seen[-1] == 1
    (record,) = rig.journal()
    assert (record.outcome, record.completion_tokens) == ("finished", len(tokens))
    assert (record.base, record.adapter, record.tag) == ("tiny", None, {"key": "k"})


def test_everything_that_vllm_would_fill_in_by_itself_is_said(rig: Rig) -> None:
    request = ask(temperature=0.7, top_p=0.9, presence_penalty=0.5, logit_bias={9: -3.0})
    request.namespace = "proj_1"
    other = ask("r2", namespace="proj_2")

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, request)
        await collect(client, other)

    rig.run(story)
    first, second = rig.vllm.requests
    assert first["prompt"] == [40, 41, 42]
    assert first["add_special_tokens"] is False
    assert (first["seed"], first["temperature"], first["top_p"]) == (7, 0.7, 0.9)
    assert (first["top_k"], first["min_p"], first["repetition_penalty"]) == (0, 0.0, 1.0)
    assert (first["presence_penalty"], first["frequency_penalty"]) == (0.5, 0.0)
    assert (first["stop_token_ids"], first["ignore_eos"]) == ([END], True)
    assert first["logit_bias"] == {"9": -3.0}
    # Whose prompts may share what is computed: by project, without telling which project it is.
    assert first["cache_salt"] != second["cache_salt"]
    assert "proj" not in first["cache_salt"]


def test_a_stop_string_ends_an_answer_here_and_the_stream_to_vllm(rig: Rig) -> None:
    tokens = ids_of(rig.tokenizer, "says hello to the user, assistant")
    rig.vllm.says = lambda _: tokens
    rig.vllm.trouble = Trouble(hold=threading.Event())

    async def story(client: EngineClient, _: Door) -> list[Delta | Final]:
        rig.vllm.trouble.hold.set()  # type: ignore[union-attr]
        lines = await collect(client, ask(max_tokens=400, stop=[" the us"]))
        await wait_until(lambda: rig.vllm.running == 0)
        return lines

    lines = rig.run(story)
    assert said(lines) == "says hello to"
    last = lines[-1]
    assert isinstance(last, Final)
    assert last.completion_tokens < 50


def test_choices_are_told_apart_and_greedy_ones_are_computed_once(rig: Rig) -> None:
    tokens = [*ids_of(rig.tokenizer, "the lazy dog"), END]
    rig.vllm.says = lambda _: tokens

    async def story(client: EngineClient, _: Door) -> list[list[Delta | Final]]:
        return [
            await collect(client, ask("drawn", n=3, temperature=1.0, max_tokens=40)),
            await collect(client, ask("greedy", n=3, temperature=0.0, max_tokens=40)),
            await collect(client, ask("narrow", n=2, top_p=0.0, max_tokens=40)),
        ]

    drawn, greedy, narrow = rig.run(story)
    assert [r["n"] for r in rig.vllm.requests] == [3, 1, 1]
    assert rig.vllm.requests[2]["top_p"] == 1.0
    for lines, count in ((drawn, 3), (greedy, 3), (narrow, 2)):
        assert {said(lines, choice) for choice in range(count)} == {"the lazy dog"}
        assert sum(isinstance(x, Final) for x in lines) == 1
        assert lines[-1] == Final(3, 0, count * len(tokens))


def test_log_probabilities_are_those_that_were_asked_for(rig: Rig) -> None:
    rig.vllm.says = lambda _: [50, 60, END]

    async def story(client: EngineClient, _: Door) -> list[list[Delta | Final]]:
        return [await collect(client, ask(f"r{top}", logprobs=top)) for top in (0, 2)]

    without, two = rig.run(story)
    told = [one for line in two if isinstance(line, Delta) for one in line.logprobs]
    assert [one.id for one in told] == [50, 60]
    # vLLM adds the chosen token to the best ones; who asked for two gets the two best.
    assert [[t.id for t in one.top] for one in told] == [[51, 50], [61, 60]]
    assert told[0].logprob == -0.5
    bare = [one for line in without if isinstance(line, Delta) for one in line.logprobs]
    assert [(one.id, one.top) for one in bare] == [(50, []), (60, [])]


@pytest.mark.parametrize("burst", [1, 2, 3, 50])
@pytest.mark.parametrize("stop", [[], ["q"], ["own f", "x"], ["never"]])
def test_however_tokens_are_bundled_an_answer_is_the_one_that_its_tokens_give(
    rig: Rig, burst: int, stop: list[str]
) -> None:
    tokens = [*ids_of(rig.tokenizer, "thé quick 🦊 brown fox, over the lazy dog"), END]
    rig.vllm.says, rig.vllm.burst = lambda _: tokens, burst
    request = ask(max_tokens=len(tokens) + 3, stop=stop, logprobs=1)
    judge = GeneratedAnswer(request, rig.tokenizer)
    expected: list[Delta] = []
    for token in tokens:
        delta = judge.take(0, token, Candidates(-0.5, [token + 1], [-0.25]))
        expected += [] if delta is None else [delta]
        if delta is not None and delta.finish is not None:
            break

    async def story(client: EngineClient, _: Door) -> list[Delta | Final]:
        return await collect(client, request)

    *deltas, last = rig.run(story)
    assert deltas == expected
    assert last == Final(3, 0, judge.completion_tokens)


def test_an_adapter_is_written_anew_and_loaded_under_its_hash(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 1)

    async def story(client: EngineClient, _: Door) -> EngineHealth:
        await collect(client, ask("a", adapter=sha256))
        await collect(client, ask("b", adapter=sha256))
        return await client.health()

    health = rig.run(story)
    assert [what for what, _ in rig.vllm.calls] == ["load"]
    assert {r["model"] for r in rig.vllm.requests} == {f"afina-{sha256}"}
    folder = rig.plain.data / "engine" / "vllm" / sha256
    assert rig.vllm.calls[0][1]["lora_path"] == str(folder)
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert health.adapters == [sha256]
    assert health.bases == ["tiny"]
    assert health.elsewhere == {"tiny": f"vllm 0.32.0 at {rig.vllm.url}"}
    assert [r.adapter for r in rig.journal()] == [sha256, sha256]


def odd_adapter(rig: Rig, config: dict[str, Any], weights: bytes | None = None) -> str:
    """An adapter whose files hold more than ours do."""
    raw = blob_path(rig.plain.blobs, put_adapter(rig.plain, rig.record, 2)).read_bytes()
    manifest = Manifest.from_bytes(raw)
    told = json.loads(blob_path(rig.plain.blobs, manifest.files[CONFIG]).read_bytes())
    files = {**manifest.files, CONFIG: put_blob(rig.plain, json.dumps(told | config).encode())}
    if weights is not None:
        files[WEIGHTS] = put_blob(rig.plain, weights)
    odd = Manifest("lora", "tiny", rig.record.sha256, files, "t" * 64, "d" * 64)
    return put_blob(rig.plain, odd.to_bytes())


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "code.Model"}},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"trust_remote_code": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"peft_type": "PROMPT_TUNING"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_an_adapter_that_names_code_or_what_is_not_known_never_reaches_vllm(
    rig: Rig, config: dict[str, Any]
) -> None:
    sha256 = odd_adapter(rig, config)

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(InvalidRequest, match=next(iter(config))):
            await collect(client, ask(adapter=sha256))

    rig.run(story)
    assert not rig.vllm.calls
    assert not rig.journal()


def test_notes_in_an_adapters_files_are_left_out(rig: Rig) -> None:
    sha256 = odd_adapter(rig, {"revision": "x", "peft_version": "1; import os", "auto_map": None})

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, ask(adapter=sha256))

    rig.run(story)
    folder = Path(rig.vllm.adapters[f"afina-{sha256}"])
    told = json.loads((folder / CONFIG).read_bytes())
    assert not {"revision", "peft_version", "auto_map"} & told.keys()
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_damaged_adapter_never_reaches_vllm(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 3)
    manifest = Manifest.from_bytes(blob_path(rig.plain.blobs, sha256).read_bytes())
    path = blob_path(rig.plain.blobs, manifest.files[WEIGHTS])
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(AfinaError, match="damaged"):
            await collect(client, ask(adapter=sha256))

    rig.run(story)
    assert not rig.vllm.calls


def test_tunes_with_weights_of_their_own_are_refused_with_the_way_out(rig: Rig) -> None:
    sha256 = put_own(rig.plain, rig.record, "blocks", 4, ("model.layers.2",))

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(BaseRefused, match="blocks") as caught:
            await collect(client, ask(adapter=sha256))
        assert "AFINA_ENGINE__VLLM__MODELS" in str(caught.value.remedy)

    rig.run(story)
    assert not rig.vllm.requests


def test_adapters_go_when_they_are_deleted_idle_or_too_many(rig: Rig) -> None:
    first, second, third = (put_adapter(rig.plain, rig.record, seed) for seed in (5, 6, 7))

    async def story(client: EngineClient, door: Door) -> None:
        for number, sha256 in enumerate((first, second, third)):
            await collect(client, ask(f"r{number}", adapter=sha256))
        assert list(rig.vllm.adapters) == [f"afina-{second}", f"afina-{third}"]
        await client.forget(third)
        await wait_until(lambda: list(rig.vllm.adapters) == [f"afina-{second}"])
        tidying = asyncio.ensure_future(door.tidy(0.01))
        await wait_until(lambda: not rig.vllm.adapters)
        await wait_until(lambda: not list((rig.plain.data / "engine" / "vllm").iterdir()))
        tidying.cancel()

    rig.run(story, rig.settings(adapters_resident=2, adapter_idle_s=0.001))


def test_an_adapter_in_use_stays_until_its_last_request_has_ended(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 8)
    hold = threading.Event()
    rig.vllm.trouble = Trouble(hold=hold)

    async def story(client: EngineClient, door: Door) -> None:
        answering = asyncio.ensure_future(collect(client, ask(adapter=sha256)))
        await wait_until(lambda: rig.vllm.running == 1)
        await client.forget(sha256)
        tidying = asyncio.ensure_future(door.tidy(0.01))
        assert list(rig.vllm.adapters) == [f"afina-{sha256}"]
        hold.set()
        assert isinstance((await answering)[-1], Final)
        await wait_until(lambda: not rig.vllm.adapters)
        tidying.cancel()

    rig.run(story)


def test_what_vllm_has_put_out_of_its_memory_is_unloaded_all_the_same(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 9)

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, ask(adapter=sha256))
        rig.vllm.in_memory.clear()
        await client.forget(sha256)
        await wait_until(lambda: not rig.vllm.adapters)

    rig.run(story)
    assert [what for what, _ in rig.vllm.calls] == ["load", "unload", "load", "unload"]


def test_a_server_that_was_started_again_gets_its_adapters_anew(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 10)

    async def story(client: EngineClient, _: Door) -> list[Delta | Final]:
        await collect(client, ask("before", adapter=sha256))
        rig.vllm.forget_all()
        return await collect(client, ask("after", adapter=sha256))

    assert isinstance(rig.run(story)[-1], Final)
    assert len(rig.vllm.adapters) == 1


def test_what_an_earlier_engine_left_there_is_unloaded_and_foreign_ones_are_not(rig: Rig) -> None:
    ours = str(rig.plain.data / "engine" / "vllm" / ("e" * 64))
    rig.vllm.adapters = {"afina-" + "e" * 64: ours, "somebodys": "/elsewhere"}
    rig.vllm.in_memory = set(rig.vllm.adapters)

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, ask())

    rig.run(story)
    assert list(rig.vllm.adapters) == ["somebodys"]


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        (Trouble(cut_after=2), EngineFailed, "broke off"),
        (Trouble(error_after=1), EngineFailed, "EngineCore"),
        (Trouble(end_after=2, end_reason="abort"), EngineFailed, "abort"),
        (Trouble(end_after=2, end_reason="length"), EngineFailed, "early"),
        (Trouble(end_after=2, end_reason="stop"), EngineFailed, "early"),
        (Trouble(status=500, message="boom"), EngineFailed, "500"),
        (Trouble(status=503, message="full", retry_after="2"), Overloaded, "overloaded"),
        (Trouble(status=400, message="maximum context length is 9"), ContextTooLong, "context"),
        (Trouble(status=400, message="no"), InvalidRequest, "refused"),
        (Trouble(status=404, message="The model does not exist."), InvalidRequest, "404"),
        (Trouble(status=401, message="Unauthorized"), Unavailable, "key"),
    ],
    ids=str,
)
def test_trouble_at_vllm_is_an_error_and_never_a_short_answer(
    rig: Rig, trouble: Trouble, error: type[AfinaError], words: str
) -> None:
    rig.vllm.trouble = trouble

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(error, match=words) as caught:
            await collect(client, ask())
        if trouble.retry_after:
            assert caught.value.retry_after_s == 2.0

    rig.run(story)
    computed = trouble.status is None
    assert [r.outcome for r in rig.journal()] == (["failed"] if computed else [])


def test_a_server_that_is_away_is_said_to_be_away(rig: Rig) -> None:
    sha256 = put_adapter(rig.plain, rig.record, 11)

    async def story(client: EngineClient, door: Door) -> None:
        await collect(client, ask("there", adapter=sha256))
        rig.vllm.stop()
        with pytest.raises(Unavailable, match=rig.vllm.url) as caught:
            await collect(client, ask("away", adapter=sha256))
        assert caught.value.remedy
        tidying = asyncio.ensure_future(door.tidy(0.01))
        async with asyncio.timeout(10):
            while (health := await client.health()).bases:
                await asyncio.sleep(0.01)
        tidying.cancel()
        assert health.adapters == []

    rig.run(story)


def test_before_the_server_was_ever_seen_nobody_answers_in_its_place(tmp_path: Path) -> None:
    settings, _ = make_data(tmp_path)
    told = settings.engine.model_copy(update={"vllm": VllmSettings(url="http://127.0.0.1:9")})

    async def story() -> None:
        async with engine(settings.model_copy(update={"engine": told})) as (client, door):
            await door.preload("tiny")
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
                await collect(client, ask())
            assert (await client.health()).bases == []

    asyncio.run(story())


def test_bases_that_vllm_does_not_list_are_answered_here(rig: Rig) -> None:
    rig.vllm.models = {"another": rig.tokenizer}

    async def story(client: EngineClient, _: Door) -> EngineHealth:
        assert isinstance((await collect(client, ask()))[-1], Final)
        return await client.health()

    health = rig.run(story)
    assert not rig.vllm.requests
    assert (health.bases, health.elsewhere) == (["tiny"], {})


def test_a_base_may_have_another_name_there(rig: Rig) -> None:
    rig.vllm.models = {"org/tiny-chat": rig.tokenizer}
    vllm = VllmSettings(url=rig.vllm.url, models={"tiny": "org/tiny-chat"})

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, ask())

    rig.run(story, rig.settings(vllm=vllm))
    assert rig.vllm.requests[0]["model"] == "org/tiny-chat"


class Another(ChatTokenizer):
    """The tokeniser of another model."""

    def encode_template(self, text: str) -> list[int]:
        return super().encode_template(text)[::-1]


def test_a_server_that_begins_anew_on_another_model_is_found_out(rig: Rig) -> None:
    async def story(client: EngineClient, door: Door) -> None:
        await collect(client, ask("before"))
        rig.vllm.models, rig.vllm.root = {"tiny": Another(rig.tokenizer.source)}, "/others"
        tidying = asyncio.ensure_future(door.tidy(0.01))
        async with asyncio.timeout(10):
            while "tiny" in (await client.health()).elsewhere:
                await asyncio.sleep(0.01)
        tidying.cancel()
        with pytest.raises(BaseRefused, match="other ids"):
            await collect(client, ask("after"))

    rig.run(story)
    assert len(rig.vllm.requests) == 1


def test_another_model_under_a_bases_name_is_found_out(rig: Rig) -> None:
    rig.vllm.models = {"tiny": Another(rig.tokenizer.source)}

    async def story(client: EngineClient, _: Door) -> None:
        for name in ("r1", "r2"):
            with pytest.raises(BaseRefused, match="other ids"):
                await collect(client, ask(name))

    rig.run(story)
    assert not rig.vllm.requests


def test_the_shorter_of_two_contexts_counts(rig: Rig) -> None:
    rig.vllm.context = 100

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(ContextTooLong, match="100"):
            await collect(client, ask(max_tokens=98))

    rig.run(story)
    assert not rig.vllm.requests


def test_a_client_that_leaves_frees_its_place_at_vllm(rig: Rig) -> None:
    rig.vllm.trouble = Trouble(hold=threading.Event())

    async def story(client: EngineClient, _: Door) -> None:
        async with contextlib.aclosing(client.generate(ask("early"))) as lines:
            async for _line in lines:
                break
        await wait_until(lambda: rig.vllm.left == 1)
        await wait_until(lambda: bool(rig.journal()))

    rig.run(story)
    (record,) = rig.journal()
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == ("left", 3, 1)


def test_an_engine_that_stops_says_so_to_every_stream(rig: Rig) -> None:
    rig.vllm.trouble = Trouble(hold=threading.Event())

    async def story(client: EngineClient, door: Door) -> None:
        answering = asyncio.ensure_future(collect(client, ask()))
        await wait_until(lambda: rig.vllm.running == 1)
        await door.drain(0.0)
        with pytest.raises(Unavailable, match="stopping"):
            await answering

    async def whole() -> None:
        door = Door(rig.settings())
        server = await listen(rig.plain.engine_socket, door.handle)
        await story(EngineClient(rig.plain.engine_socket), door)
        await server.close(1.0)

    asyncio.run(whole())
    assert [r.outcome for r in rig.journal()] == ["failed"]


def test_scores_are_walked_on_the_path_that_answers_and_say_whose_they_are(rig: Rig) -> None:
    # vLLM would say 5, 6, 7, … by itself; the fake's candidates are the token and the two above it.
    rig.vllm.says = lambda body: list(range(3 + len(body["prompt"]), 90))

    async def story(client: EngineClient, _: Door) -> Any:
        found = await client.score(Score("tiny", [3, 4], [5, 8, 7, 60], top=3))
        await client.score(Score("tiny", [3, 4], [5, 6], request_id="s", tag={"project": "p"}))
        return found

    found = rig.run(story)
    assert found.top_ids == [[5, 6, 7], [6, 7, 8], [7, 8, 9], [8, 9, 10]]
    # As it said; listed third, though it said 6; as it said again; not listed, so asked for alone.
    assert found.logprobs == [-0.5, -1.75, -0.5, -0.5]
    assert (found.precision, found.engine) == ("bf16", "vllm 0.32.0")
    asked = [(r["prompt"], r["max_tokens"], r.get("allowed_token_ids")) for r in rig.vllm.requests]
    assert asked[:3] == [
        ([3, 4], 4, None),
        ([3, 4, 5, 8], 2, None),
        ([3, 4, 5, 8, 7], 1, [60]),
    ]
    (record,) = rig.journal()
    assert (record.request_id, record.prompt_tokens, record.completion_tokens) == ("s", 4, 0)


def test_long_scores_come_in_parts_and_in_their_order(rig: Rig) -> None:
    rig.vllm.says = lambda body: [100 + len(body["prompt"])] * 40

    async def story(client: EngineClient, _: Door) -> Any:
        return await client.score(Score("tiny", [3, 4], [102 + n for n in range(100)], top=1))

    found = rig.run(story)
    assert len(found.logprobs) == 100
    assert set(found.logprobs) == {-0.5}
    assert rig.vllm.running == 0


@pytest.mark.parametrize(
    "trouble", [Trouble(cut_after=1), Trouble(status=500), Trouble(error_after=0)]
)
def test_a_score_that_breaks_off_is_an_error(rig: Rig, trouble: Trouble) -> None:
    rig.vllm.trouble = trouble

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(EngineFailed):
            await client.score(Score("tiny", [3, 4], [5, 5, 5, 5], top=1))

    rig.run(story)


def test_a_grammar_goes_along_and_its_refusal_names_the_field(rig: Rig) -> None:
    grammar = '%llguidance {}\nstart: "yes"\n'
    rig.vllm.trouble = Trouble(end_after=2, end_reason="stop")

    async def story(client: EngineClient, _: Door) -> list[Delta | Final]:
        lines = await collect(client, ask("whole", grammar=grammar))
        rig.vllm.trouble = Trouble(error_after=0, error=(400, "Grammar error: 2(18): Expected"))
        with pytest.raises(UnsupportedField) as caught:
            await collect(client, ask("refused", grammar=grammar))
        assert caught.value.param == "response_format"
        return lines

    lines = rig.run(story)
    assert rig.vllm.requests[0]["structured_outputs"] == {"grammar": grammar}
    assert rig.vllm.requests[0]["ignore_eos"] is False
    assert [x.finish for x in lines if isinstance(x, Delta) and x.finish] == ["stop"]
    assert [r.request_id for r in rig.journal()] == ["whole"]


def test_a_schema_goes_along_in_the_form_that_vllm_lets_through(rig: Rig) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["é"]}}, "required": ["a"]}
    grammar = schema_grammar(schema, strict=True, param="response_format")

    async def story(client: EngineClient, _: Door) -> None:
        await collect(client, ask(grammar=grammar))

    rig.run(story)
    sent = rig.vllm.requests[0]["structured_outputs"]["grammar"]
    head, start, rest = sent.split("\n")
    assert (head, rest) == ("%llguidance {}", "")
    told = json.loads(start.removeprefix("start: %json "))
    assert {key: told[key] for key in schema} == schema
    assert "whitespace_pattern" in told["x-guidance"]
    assert not LLMatcher.validate_grammar(sent)


def test_a_server_without_runtime_adapters_is_named_with_its_remedy(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path / "data")
    tokenizer = ChatTokenizer.load(settings.models / "tiny")
    with ScriptedVllm({"tiny": tokenizer}, takes_adapters=False) as vllm:
        rig = Rig(settings, record, vllm)

        async def story(client: EngineClient, _: Door) -> None:
            with pytest.raises(Unavailable) as caught:
                await collect(client, ask(adapter=put_adapter(settings, record, 12)))
            assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in str(caught.value.remedy)

        rig.run(story)


def test_a_rank_that_vllm_does_not_take_is_refused_with_its_words(rig: Rig) -> None:
    rig.vllm.largest_rank = 4

    async def story(client: EngineClient, _: Door) -> None:
        with pytest.raises(BaseRefused, match="max_lora_rank"):
            await collect(client, ask(adapter=put_adapter(rig.plain, rig.record, 13)))

    rig.run(story)


def test_the_metrics_count_what_vllm_answers(rig: Rig) -> None:
    rig.vllm.says = lambda _: [50, END]
    hold = threading.Event()

    async def story(client: EngineClient, _: Door) -> str:
        await collect(client, ask("done"))
        rig.vllm.trouble = Trouble(hold=hold)
        answering = asyncio.ensure_future(collect(client, ask("now")))
        await wait_until(lambda: rig.vllm.running == 1)
        await wait_until(lambda: True)
        found = await client.metrics()
        hold.set()
        await answering
        return found.decode()

    told = rig.run(story)
    model = 'base="tiny",tune=""'
    assert 'afina_engine_requests_total{base="tiny",outcome="finished",tune=""} 1.0' in told
    assert f"afina_engine_completion_tokens_total{{{model}}} 2.0" in told
    assert f"afina_engine_running{{{model}}} 1.0" in told
    assert 'afina_engine_first_token_seconds_count{base="tiny"}' in told


def test_thirty_streams_over_many_tunes_each_end_once(rig: Rig) -> None:
    tunes = [put_adapter(rig.plain, rig.record, 20 + seed, rank=2) for seed in range(4)]
    rig.vllm.says = lambda body: [60 + len(body["model"]) % 7, 61, END]

    async def story(client: EngineClient, _: Door) -> list[list[Delta | Final]]:
        asked = [ask(f"r{i}", adapter=[*tunes, None][i % 5]) for i in range(30)]
        return await asyncio.gather(*(collect(client, request) for request in asked))

    found = rig.run(story, rig.settings(adapters_resident=2))
    assert all(sum(isinstance(x, Final) for x in lines) == 1 for lines in found)
    assert len(rig.journal()) == 30


def test_a_server_with_a_key_is_asked_with_it(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path / "data")
    tokenizer = ChatTokenizer.load(settings.models / "tiny")
    with ScriptedVllm({"tiny": tokenizer}, key="s3cret") as vllm:
        rig = Rig(settings, record, vllm)

        async def story(client: EngineClient, _: Door) -> None:
            await collect(client, ask())

        rig.run(story)
        wrong = VllmSettings(url=vllm.url, key="other")

        async def refused(client: EngineClient, _: Door) -> None:
            with pytest.raises(Unavailable, match="key"):
                await collect(client, ask())

        rig.run(refused, rig.settings(vllm=wrong))
        assert "s3cret" not in repr(rig.settings())
