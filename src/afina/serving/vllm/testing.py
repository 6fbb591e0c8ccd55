"""An honest fake of a vLLM server for tests: its HTTP on a real socket, with scripted tokens.

    with ScriptedVllm({"tiny": tokenizer}) as vllm:
        vllm.says = lambda body: [5, 6, 7]

What it answers was recorded from vLLM 0.32: shapes, statuses, words of refusals, chunks and their
order. It is stricter in one thing: a field that vLLM does not know is a 400 here, while vLLM takes
it and ignores it. It computes nothing, so it checks of an adapter only what vLLM checks first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from afina.text.tokenizer import ChatTokenizer

FIELDS: Final = frozenset(
    {
        "model", "prompt", "add_special_tokens", "max_tokens", "n", "temperature", "top_p",
        "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
        "stop_token_ids", "ignore_eos", "skip_special_tokens", "stream", "stream_options",
        "return_token_ids", "logit_bias", "logprobs", "return_tokens_as_token_ids",
        "structured_outputs", "cache_salt", "allowed_token_ids", "priority",
    }
)  # fmt: skip
"""Of /v1/completions, as far as the engine uses them."""
_REASONS: Final = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with the next answers."""

    status: int | None = None
    """Refuse with this status."""
    message: str = ""
    retry_after: str | None = None
    cut_after: int | None = None
    """Hang up after so many chunks."""
    error_after: int | None = None
    """Send an error in the stream after so many chunks, as vLLM does when its engine dies, and for
    what it finds out late."""
    error: tuple[int, str] = (500, "EngineCore encountered an issue.")
    end_after: int | None = None
    """End every choice after so many tokens by `end_reason`, whatever was asked."""
    end_reason: str = "abort"
    hold: threading.Event | None = None
    """Wait for this after the first chunk."""


class ScriptedVllm:
    """Serves until the `with` block ends. `models`: names, and the tokenisers of their bases."""

    def __init__(
        self,
        models: Mapping[str, ChatTokenizer],
        *,
        key: str | None = None,
        context: int = 512,
        largest_rank: int = 64,
        takes_adapters: bool = True,
        port: int = 0,
    ) -> None:
        self.models = dict(models)
        self.key = key
        self.context = context
        self.largest_rank = largest_rank
        self.takes_adapters = takes_adapters
        self.says: Callable[[Mapping[str, Any]], Sequence[int]] = lambda _: [5, 6, 7]
        """The tokens of an answer; the last is said again and again where more are asked for."""
        self.root = "/models"
        """The folder that it says it was started on."""
        self.burst = 1
        """Tokens in a chunk; vLLM sends several where its reader is slower than it is."""
        self.trouble = Trouble()
        self.adapters: dict[str, str] = {}
        """Paths by name."""
        self.in_memory: set[str] = set()
        """Names that the fake has not put out of its memory."""
        self.requests: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """Loads and unloads, in their order."""
        self.left = 0
        """Streams whose client went away early."""
        self.running = 0
        self._port = port
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def forget_all(self) -> None:
        """As if it had been started again."""
        self.adapters.clear()
        self.in_memory.clear()

    def __enter__(self) -> ScriptedVllm:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it, and every stream; the address refuses from now on."""
        if self._thread.is_alive() and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._meet(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()
                tasks.discard(task)

        server = await asyncio.start_server(meet, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw else {}
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            _answer(writer, 401, {"error": "Unauthorized"})
        elif path == "/v1/completions" and method == "POST":
            await self._complete(reader, writer, body)
        else:
            status, told = self._call(method, path, body)
            _answer(writer, status, told)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    def _call(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        match method, path:
            case "GET", "/v1/models":
                return 200, {"object": "list", "data": self._cards()}
            case "GET", "/version":
                return 200, {"version": "0.32.0"}
            case "GET", "/openapi.json":
                paths = ["/v1/load_lora_adapter"] if self.takes_adapters else []
                return 200, {"paths": {path: {"post": {}} for path in paths}}
            case "GET", "/metrics":
                return 200, "vllm:lora_requests_info 1.0\n" if self.takes_adapters else "up 1.0\n"
            case "POST", "/tokenize":
                ids = self.models[body["model"]].encode_template(body["prompt"])
                return 200, {"count": len(ids), "max_model_len": self.context, "tokens": ids}
            case "POST", "/v1/load_lora_adapter" if self.takes_adapters:
                self.calls.append(("load", body))
                return self._load(body)
            case "POST", "/v1/unload_lora_adapter" if self.takes_adapters:
                self.calls.append(("unload", body))
                return self._unload(body)
            case _:
                return 404, {"error": _error("Not Found", "NotFoundError", 404)}

    def _cards(self) -> list[dict[str, Any]]:
        first = next(iter(self.models))
        return [
            {"id": name, "object": "model", "root": self.root, "parent": None,
             "max_model_len": self.context}
            for name in self.models
        ] + [
            {"id": name, "object": "model", "root": path, "parent": first, "max_model_len": None}
            for name, path in self.adapters.items()
        ]  # fmt: skip

    def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters and not body.get("load_inplace"):
            said = f"The lora adapter '{name}' has already been loaded."
            return 400, {"error": _error(said, "InvalidUserInput", 400)}
        try:
            rank = json.loads((Path(path) / "adapter_config.json").read_bytes())["r"]
        except OSError:
            said = f"Loading lora {name} failed: No adapter found for {path}"
            return 404, {"error": _error(said, "NotFoundError", 404)}
        if rank > self.largest_rank:
            said = f"LoRA rank {rank} is greater than max_lora_rank {self.largest_rank}."
            return 500, {"error": _error(said, "InternalServerError", 500)}
        self.adapters[name] = path
        self.in_memory.add(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["lora_name"]
        if name not in self.adapters:
            said = f"The lora adapter '{name}' cannot be found."
            return 404, {"error": _error(said, "NotFoundError", 404)}
        if name not in self.in_memory:
            said = f"Failed to remove lora adapter '{name}' from the engine."
            return 500, {"error": _error(said, "InternalServerError", 500)}
        del self.adapters[name]
        self.in_memory.discard(name)
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    async def _complete(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]
    ) -> None:
        self.requests.append(body)
        refused = self._refusal(body)
        if refused is not None:
            status, said = refused
            _answer(writer, status, {"error": _error(said, "BadRequestError", status)},
                    self.trouble.retry_after)  # fmt: skip
        else:
            self.running += 1
            gone = asyncio.ensure_future(reader.read(1))
            answering = asyncio.ensure_future(self._stream(writer, body))
            await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
            self.running -= 1
            if not answering.done():
                self.left += 1
            for task in (gone, answering):
                task.cancel()
            await asyncio.gather(gone, answering, return_exceptions=True)

    def _refusal(self, body: dict[str, Any]) -> tuple[int, str] | None:
        unknown = sorted(set(body) - FIELDS)
        if unknown:
            return 400, f"the fake does not know {unknown}"
        if self.trouble.status is not None:
            return self.trouble.status, self.trouble.message
        if body["model"] not in {*self.models, *self.adapters}:
            return 404, f"The model `{body['model']}` does not exist."
        if body.get("n", 1) > 1 and body["temperature"] == 0.0:
            return 400, f"n must be 1 when using greedy sampling, got {body['n']}."
        if body["top_p"] == 0.0 if "top_p" in body else False:
            return 400, "top_p must be in (0, 1], got 0.0."
        if len(body["prompt"]) + body["max_tokens"] > self.context:
            return 400, f"This model's maximum context length is {self.context} tokens."
        return None

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )
        trouble = self.trouble
        for sent, event in enumerate(self._events(body)):
            if sent == trouble.cut_after:
                writer.transport.abort()
                return
            if sent == trouble.error_after:
                code, said = trouble.error
                _write_event(writer, {"error": _error(said, "Error", code)})
                break
            _write_event(writer, event)
            while trouble.hold is not None and not trouble.hold.is_set():
                await asyncio.sleep(0.002)
            await writer.drain()
        _write_chunk(writer, b"data: [DONE]\n\n")
        _write_chunk(writer, b"")
        await writer.drain()

    def _events(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        prompt, counts = body["prompt"], body.get("n", 1)
        said = body.get("allowed_token_ids") or list(self.says(body))
        if self.trouble.end_after is None:
            said += said[-1:] * max(0, body["max_tokens"] - len(said))
        tokens, finish = _ended(body, said, self.trouble)
        usage = {
            "prompt_tokens": len(prompt),
            "total_tokens": len(prompt) + counts * len(tokens),
            "completion_tokens": counts * len(tokens),
            "prompt_tokens_details": {"cached_tokens": len(prompt) // 16 * 16},
        }
        events = [
            _event(body, choice, place, tokens[place : place + self.burst],
                   finish if place + self.burst >= len(tokens) else None)
            for place in range(0, len(tokens), self.burst)
            for choice in range(counts)
        ]  # fmt: skip
        return [*events, {"object": "text_completion", "choices": [], "usage": usage}]


def _ended(body: dict[str, Any], said: list[int], trouble: Trouble) -> tuple[list[int], str]:
    for place, token in enumerate(said):
        if trouble.end_after is not None and place + 1 == trouble.end_after:
            return said[: place + 1], trouble.end_reason
        if token in body.get("stop_token_ids", ()):
            return said[: place + 1], "stop"
        if place + 1 == body["max_tokens"]:
            return said[: place + 1], "length"
    return said, "stop"


def _event(
    body: dict[str, Any], choice: int, place: int, tokens: list[int], finish: str | None
) -> dict[str, Any]:
    logprobs = None
    if body.get("logprobs") is not None:
        logprobs = {
            "text_offset": list(range(place, place + len(tokens))),
            "token_logprobs": [-0.5] * len(tokens),
            "tokens": [f"token_id:{token}" for token in tokens],
            "top_logprobs": [_top(body, token) for token in tokens],
        }
    told = {
        "index": choice,
        "text": "?",
        "logprobs": logprobs,
        "finish_reason": finish,
        "stop_reason": tokens[-1] if finish == "stop" else None,
        "token_ids": tokens,
        "prompt_token_ids": body["prompt"] if place == 0 else None,
    }
    return {"id": "cmpl-1", "object": "text_completion", "choices": [told], "usage": None}


def _top(body: dict[str, Any], token: int) -> dict[str, float]:
    """The token, and those above it by number as candidates; greedy tokens are the likeliest."""
    best = -0.75 if body["temperature"] == 0.0 else -0.25
    others = {f"token_id:{token + 1 + n}": best - n for n in range(body["logprobs"])}
    return {f"token_id:{token}": -0.5, **others}


def _error(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": None, "code": code}


def _answer(
    writer: asyncio.StreamWriter, status: int, told: Any, retry_after: str | None = None
) -> None:
    raw = told.encode() if isinstance(told, str) else json.dumps(told).encode()
    more = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, '-')}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n{more}connection: close\r\n\r\n"
    )
    writer.write(head.encode() + raw)


def _write_event(writer: asyncio.StreamWriter, event: Mapping[str, Any]) -> None:
    _write_chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
