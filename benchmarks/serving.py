"""afina's serving against transformers' `generate`, side by side: same model, prompts, tokens.

    python -m benchmarks.serving [--through engine|api] [--streams 1,8,32] [--repeats 3]
        [--few-bits int8 int4] [--peers llama.cpp] [--vllm-python PATH] [--ready]

`generate` runs one static batch in bf16, without a server: its best case. afina answers streams
over HTTP: the engine's own socket, or the whole API with keys, rendering and metering. Both get 64
new tokens a prompt; adapters are random, of rank 16 on all linear layers, spread evenly. Runs
alternate; medians are printed. With few bits an engine of its own answers for the base. Peers
(benchmarks/serving_peers.py, and vLLM with LoRA off and on: benchmarks/serving_vllm.py) are asked
for chat completions by the client that asks afina's API. The client shares the machine with what
it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks import serving_vllm
from benchmarks.serving_peers import llama_cpp

from afina.domain.codec import decode
from afina.domain.manifests import Manifest, blob_path
from afina.domain.models import BaseModel, TunedModel
from afina.domain.runs import LoraSpec
from afina.errors import AfinaError
from afina.model.base import load_base
from afina.model.peft_files import CONFIG, WEIGHTS, AdapterConfig, adapter_bytes
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Delta, Final, Generate
from afina.settings import OFFLINE, Settings, child_environment
from afina.text.renderer import Renderer

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
NEW_TOKENS = 64
TOPICS = (
    "a lighthouse keeper",
    "an old printing press",
    "the smell of rain",
    "a lost umbrella",
    "two rival bakers",
    "a slow train",
    "the last apple tree",
    "a clock that runs backwards",
)


@dataclass(frozen=True)
class Measured:
    """One run of one way at one number of streams."""

    tokens: int
    seconds: float
    first_token_s: float
    """Median over streams; for `generate` there is no token before all."""

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def question(number: int) -> str:
    """A prompt of about 45 tokens whose answer is long."""
    return f"Write story number {number} about {TOPICS[number % len(TOPICS)]}, in great detail."


class Generating:
    """transformers' generate over a static batch."""

    def __init__(self, folder: Path, prompts: list[list[int]]) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self._prompts = prompts

    async def run(self, streams: int) -> Measured:
        """All prompts in one batch, padded on the left."""
        prompts = self._prompts[:streams]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        seen = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        begun = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=seen,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
        seconds = time.perf_counter() - begun
        return Measured(streams * NEW_TOKENS, seconds, seconds)


class ThroughEngine:
    """Streams on the engine's socket."""

    def __init__(self, settings: Settings, base: str, prompts: list[list[int]]) -> None:
        self._client = EngineClient(settings.engine_socket)
        self._base = base
        self._prompts = prompts
        self._asked = 0

    async def run(self, streams: int, adapters: list[str]) -> Measured:
        """All streams at once; stream i uses adapter i modulo their number."""
        return await measure(
            [
                self._one(i, adapters[i % len(adapters)] if adapters else None)
                for i in range(streams)
            ]
        )

    async def _one(self, number: int, adapter: str | None) -> tuple[int, float]:
        self._asked += 1
        request = Generate(
            request_id=f"bench-{self._asked}",
            base=self._base,
            prompt=self._prompts[number],
            max_tokens=NEW_TOKENS,
            seed=0,
            adapter=adapter,
            temperature=0.0,
        )
        begun = time.perf_counter()
        first = 0.0
        tokens = 0
        async with contextlib.aclosing(self._client.generate(request)) as lines:
            async for line in lines:
                if isinstance(line, Delta):
                    first = first or time.perf_counter() - begun
                elif isinstance(line, Final):
                    tokens = line.completion_tokens
        return tokens, first


class ThroughApi:
    """Streams of chat completions, as any client would ask for them."""

    def __init__(self, url: str, key: str, base: str) -> None:
        import httpx2

        self._client = httpx2.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=600,
            limits=httpx2.Limits(max_connections=200),
        )
        self._base = base

    async def run(self, streams: int, adapters: list[str]) -> Measured:
        """All streams at once; the answer's own usage counts the tokens."""
        names = adapters or [self._base]
        return await measure([self._one(i, names[i % len(names)]) for i in range(streams)])

    async def _one(self, number: int, model: str) -> tuple[int, float]:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question(number)}],
            "max_tokens": NEW_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun = time.perf_counter()
        first, tokens = 0.0, 0
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    first = first or time.perf_counter() - begun
                    if '"usage":{' in line or '"usage": {' in line:
                        tokens = json.loads(line[6:])["usage"]["completion_tokens"]
        return tokens, first


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def measure(streams: list[Awaitable[tuple[int, float]]]) -> Measured:
    """Runs streams together."""
    begun = time.perf_counter()
    done = await asyncio.gather(*streams)
    seconds = time.perf_counter() - begun
    return Measured(sum(t for t, _ in done), seconds, statistics.median(f for _, f in done))


def make_adapters(settings: Settings, base: BaseModel, count: int) -> list[str]:
    """Random adapters among the blobs; their manifests' hashes."""
    model = load_base(settings.models / base.id, "bf16").model
    config = AdapterConfig.of(LoraSpec(), base.id).to_bytes()
    targets = set(LoraSpec().target_modules)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in targets
    }
    found = []
    for number in range(count):
        source = torch.Generator().manual_seed(number)
        pairs = {}
        for name, module in layers.items():
            a = torch.randn(16, module.in_features, generator=source) / module.in_features**0.5
            b = torch.randn(module.out_features, 16, generator=source) * 0.02
            pairs[name] = (a.to(torch.bfloat16), b.to(torch.bfloat16))
        files = {
            CONFIG: put_blob(settings, config),
            WEIGHTS: put_blob(settings, adapter_bytes(pairs)),
        }
        manifest = Manifest("lora", base.id, base.sha256, files, "0" * 64, "0" * 64)
        found.append(put_blob(settings, manifest.to_bytes()))
    return found


def put_blob(settings: Settings, raw: bytes) -> str:
    """Writes bytes among the blobs."""
    sha256 = hashlib.sha256(raw).hexdigest()
    path = blob_path(settings.blobs, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return sha256


def publish(settings: Settings, base: BaseModel, manifests: list[str]) -> tuple[list[str], str]:
    """Names for the adapters in the store, and the API key."""
    from afina.service import keys
    from afina.service.platform import Platform
    from afina.store.models import insert_model
    from afina.store.references import Holder, admit

    platform = Platform.open(settings)
    secret = keys.ensure_first_key(platform).read_text().strip()
    caller = keys.authenticate(platform, secret)
    names = []
    with platform.database.write() as tx:
        for number, manifest in enumerate(manifests):
            name = f"ft:{base.id}:local::bench{number:03d}"
            raw = blob_path(settings.blobs, manifest).read_bytes()
            staged = platform.blobs.stage([raw])
            admit(tx, platform.blobs, staged, Holder("model", name), platform.now())
            model = TunedModel(name, caller.project_id, base.id, manifest, platform.now())
            insert_model(tx, model, caller, platform.now())
            names.append(name)
    platform.close()
    return names, secret


@contextlib.contextmanager
def processes(
    settings: Settings, base: str, with_api: bool, weights: str = "trained"
) -> Iterator[None]:
    """The engine, and the API if asked for, until the block ends."""
    told = {"AFINA_LOG_LEVEL": "warning", "AFINA_ENGINE__WEIGHTS": weights}
    environment = child_environment(**OFFLINE, **told)
    commands = [["-m", "afina.serving", "--data", str(settings.data), "--preload", base]]
    if with_api:
        api = ["api", "--data", str(settings.data), "--port", str(settings.port)]
        commands.append(["-m", "afina.cli", *api])
    children = [subprocess.Popen([sys.executable, *c], env=environment) for c in commands]
    try:
        wait_for(
            lambda: bool(BlockingEngineClient(settings.engine_socket).health().bases), children
        )
        if with_api:
            import httpx2

            url = f"{settings.server_url}/health"
            wait_for(lambda: httpx2.get(url).status_code == 200, children)
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def wait_for(ready: Callable[[], bool], children: list[subprocess.Popen[bytes]]) -> None:
    """Waits until `ready`, as long as all children live."""
    while all(child.poll() is None for child in children):
        with contextlib.suppress(AfinaError, OSError, Exception):
            if ready():
                return
        time.sleep(0.1)
    raise SystemExit("a process ended before it was ready")


async def compare(
    ways: dict[str, Callable[[int], Awaitable[Measured]]], streams: list[int], repeats: int
) -> dict[tuple[str, int], list[Measured]]:
    """Runs all ways in turns, in both directions, after a warm-up of each."""
    found: dict[tuple[str, int], list[Measured]] = {}
    for count in streams:
        for run in ways.values():
            await run(count)
        for repeat in range(repeats):
            names = list(ways) if repeat % 2 == 0 else list(reversed(ways))
            for name in names:
                measured = await ways[name](count)
                found.setdefault((name, count), []).append(measured)
                sys.stderr.write(f"{count} streams, {name}: {measured.rate:.0f} tokens/s\n")
    return found


def show(found: dict[tuple[str, int], list[Measured]], judge: str) -> None:
    """The table: medians, spread, and the ratio to the judge."""
    print(f"{'way':<24}{'streams':>8}{'tokens/s':>10}{'spread':>14}{'first token':>13}{'ratio':>8}")
    for (name, streams), runs in found.items():
        rates = sorted(run.rate for run in runs)
        rate = statistics.median(rates)
        base = statistics.median(run.rate for run in found[judge, streams])
        first = statistics.median(run.first_token_s for run in runs) * 1000
        spread = f"{rates[0]:.0f}–{rates[-1]:.0f}"
        told = "-" if name == judge else f"{first:.0f} ms"
        print(f"{name:<24}{streams:>8}{rate:>10.0f}{spread:>14}{told:>13}{rate / base:>7.2f}x")


async def run(given: argparse.Namespace, settings: Settings, base: BaseModel) -> None:
    """Measures and prints."""
    streams = [int(part) for part in given.streams.split(",")]
    renderer = Renderer.load(settings.models / base.id)
    prompts = [
        renderer.prompt([{"role": "user", "content": question(i)}]) for i in range(max(streams))
    ]
    manifests = make_adapters(settings, base, given.adapters)
    through: Any
    with_api = given.through == "api"
    if with_api:
        names, key = publish(settings, base, manifests)
        through = ThroughApi(settings.server_url, key, base.id)
    else:
        names = manifests
        through = ThroughEngine(settings, base.id, prompts)
    judge = Generating(settings.models / base.id, prompts)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes(settings, base.id, with_api))
        ways: dict[str, Callable[[int], Awaitable[Measured]]] = {
            "generate, one batch": judge.run,
            "afina, base": lambda n: through.run(n, []),
            f"afina, {len(names)} adapters": lambda n: through.run(n, names),
        }
        for weights in given.few_bits:
            other = Settings.load(data=settings.data / weights, port=free_port())
            way = in_few_bits(stack, other, base, weights, None if with_api else prompts)
            ways[f"afina, base, {weights}"] = way
        if "llama.cpp" in given.peers:
            folder = settings.models / base.id
            url = stack.enter_context(llama_cpp(folder, settings.data, max(streams)))
            peer = ThroughApi(url, "none", base.id)
            ways["llama.cpp, Q4_1"] = lambda n: peer.run(n, [])
        if given.vllm_python is not None or given.vllm_at:
            ways |= vllm_ways(stack, given, settings, base.id, manifests)
        if given.ready:
            input("Everything has started. Press Enter to measure. ")
        found = await compare(ways, streams, given.repeats)
    tokens = statistics.median(len(p) for p in prompts)
    print(
        f"{base.id}, bf16, through the {given.through}; prompts of {tokens:.0f} tokens, "
        f"{NEW_TOKENS} new ones; {os.cpu_count()} cores; medians of {given.repeats}"
    )
    show(found, "generate, one batch")


def in_few_bits(
    stack: contextlib.ExitStack,
    settings: Settings,
    base: BaseModel,
    weights: str,
    prompts: list[list[int]] | None,
) -> Callable[[int], Awaitable[Measured]]:
    """The base in few bits, in processes of its own until the stack ends; through the API unless
    `prompts` are given."""
    settings.models.mkdir(parents=True)
    folder = (settings.data.parent / "models" / base.id).resolve()
    (settings.models / base.id).symlink_to(folder)
    through: Any
    if prompts is None:
        _, key = publish(settings, base, [])
        through = ThroughApi(settings.server_url, key, base.id)
    else:
        through = ThroughEngine(settings, base.id, prompts)
    stack.enter_context(processes(settings, base.id, prompts is None, weights))
    return lambda n: through.run(n, [])


def vllm_ways(
    stack: contextlib.ExitStack,
    given: argparse.Namespace,
    settings: Settings,
    base: str,
    manifests: list[str],
) -> dict[str, Callable[[int], Awaitable[Measured]]]:
    """vLLM's servers, started until the stack ends unless they run: LoRA off, LoRA on."""
    peers: list[Any] = []
    for port, adapters in ((18384, []), (18385, manifests)):
        if given.vllm_at:
            url = given.vllm_at[len(peers)]
            peers.append(serving_vllm.running(url, settings, base, adapters))
        else:
            server = serving_vllm.serving(given.vllm_python, settings, base, port, adapters)
            peers.append(stack.enter_context(server))
    off, on = peers
    plain, tuned = ThroughApi(off.url, "none", base), ThroughApi(on.url, "none", base)
    return {
        "vLLM, LoRA off, base": lambda n: plain.run(n, []),
        f"vLLM, {len(manifests)} adapters": lambda n: tuned.run(n, on.adapters),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--through", choices=["engine", "api"], default="engine")
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--few-bits", nargs="*", default=[], choices=["int8", "int4"])
    parser.add_argument("--peers", nargs="*", default=[], choices=["llama.cpp"])
    parser.add_argument("--vllm-python", type=Path, help="a Python that has vLLM: a peer")
    parser.add_argument(
        "--vllm-at", nargs=2, metavar=("OFF", "ON"), help="addresses of two that run already"
    )
    parser.add_argument("--ready", action="store_true", help="wait for Enter before measuring")
    given = parser.parse_args()
    record = decode(BaseModel, json.loads((given.model / "afina.json").read_text()), "afina.json")
    with tempfile.TemporaryDirectory(prefix="afina-bench-") as folder:
        settings = Settings.load(data=Path(folder), port=free_port())
        settings.models.mkdir()
        (settings.models / record.id).symlink_to(given.model.absolute())
        asyncio.run(run(given, settings, record))


if __name__ == "__main__":
    main()
