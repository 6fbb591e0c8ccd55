"""vLLM's HTTP, as far as the engine uses it: requests out of ours, tokens out of its chunks.

Prompts go out as ids and answers come back as ids, so that text is made by the engine's own
detokeniser and stop strings. Everything that vLLM would fill in by itself (the model's own sampling
defaults, its own end tokens) is said, so that nothing is decided there. No torch here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from afina.errors import (
    AfinaError,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    Unavailable,
    UnsupportedField,
)
from afina.serving.answers import Candidates
from afina.serving.protocol import Generate
from afina.serving.vllm.link import Reply

COMPLETIONS: Final = "/v1/completions"
_MARK: Final = "token_id:"
_GREEDY: Final = 1e-5
"""Below this temperature both engines take the likeliest token."""
_BUSY_S: Final = 1.0


class Card(msgspec.Struct):
    """An entry of GET /v1/models: a base, or an adapter with its base as `parent`."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class Cards(msgspec.Struct):
    """GET /v1/models."""

    data: list[Card]


class Version(msgspec.Struct):
    """GET /version."""

    version: str


class Tokens(msgspec.Struct):
    """POST /tokenize."""

    tokens: list[int]


class _Logprobs(msgspec.Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class ChunkChoice(msgspec.Struct):
    """More tokens of one answer."""

    index: int = 0
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None

    def candidates(self, top: int | None) -> list[Candidates | None]:
        """One for each token; None where none were asked for. Raises EngineFailed."""
        count = len(self.token_ids or ())
        if top is None:
            return [None] * count
        told = self.logprobs
        if told is None or len(told.token_logprobs) != count:
            raise unexpected("tokens without their log-probabilities")
        tops = told.top_logprobs or [None] * count
        return [
            _candidates(chosen, others, top)
            for chosen, others in zip(told.token_logprobs, tops, strict=True)
        ]


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """The last chunk's counts."""

    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """0 where the server was not started with `--enable-prompt-tokens-details`."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0


class Chunk(msgspec.Struct):
    """One event of a stream."""

    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    error: dict[str, Any] | None = None


def completion(request: Generate, model: str, only: int | None = None) -> dict[str, Any]:
    """The body of a stream that answers `request`, with the token `only` at every place if it is
    given. Greedy choices are all alike, and vLLM makes only one of them."""
    greedy = is_greedy(request)
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.prompt,
        "add_special_tokens": False,
        "max_tokens": request.max_tokens,
        "n": 1 if greedy else request.n,
        "temperature": 0.0 if greedy else request.temperature,
        "top_p": 1.0 if greedy else request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": request.seed,
        "stop_token_ids": request.end_tokens,
        "ignore_eos": request.grammar is None,
        "skip_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if only is not None:
        body["allowed_token_ids"] = [only]
    if request.logit_bias:
        body["logit_bias"] = {str(id): bias for id, bias in request.logit_bias.items()}
    if request.logprobs is not None:
        body |= {"logprobs": request.logprobs, "return_tokens_as_token_ids": True}
    if request.grammar is not None:
        body["structured_outputs"] = {"grammar": _lark(request.grammar)}
    if request.background:
        body["priority"] = 1  # 0 is everybody's; heeded with --scheduling-policy priority
    if request.namespace:
        body["cache_salt"] = hashlib.sha256(request.namespace.encode()).hexdigest()
    return body


def _lark(grammar: str) -> str:
    """A grammar in the one form of llguidance's that vLLM lets through as it is."""
    if not grammar.startswith("{"):
        return grammar
    (only,) = msgspec.json.decode(grammar)["grammars"]
    schema = msgspec.json.encode(only["json_schema"]).decode()
    return f"%llguidance {{}}\nstart: %json {schema}\n"


def is_greedy(request: Generate) -> bool:
    """Whether the likeliest token is taken at each place."""
    return request.temperature < _GREEDY or request.top_p == 0.0


def chunk(line: bytes) -> Chunk | None:
    """A line of a stream; None for one that says nothing, and for the last. Raises EngineFailed."""
    if not line.startswith(b"data:"):
        return None
    data = line[5:].strip()
    if data == b"[DONE]":
        return None
    try:
        return msgspec.json.decode(data, type=Chunk)
    except msgspec.DecodeError:
        raise unexpected("a line that is no chunk") from None


def broken(error: Mapping[str, Any], request: Generate, begun: bool) -> AfinaError:
    """What an error in a stream means: vLLM refuses there what it finds out late, such as a grammar
    that cannot be followed."""
    code = error.get("code")
    if begun or not isinstance(code, int):
        said = _sentence(error)
        return EngineFailed(f"The vLLM server broke off this answer: {said}.", remedy="Ask again.")
    return refusal(Reply(code, msgspec.json.encode(error)), request)


def refusal(reply: Reply, request: Generate) -> AfinaError:
    """What a refusal means to who asked."""
    said = message_of(reply)
    match reply.status:
        case 401 | 403:
            return Unavailable(
                "The vLLM server does not take afina's key.",
                remedy="Set AFINA_ENGINE__VLLM__KEY to what it was started with as --api-key.",
            )
        case 429 | 503:
            return Overloaded(
                f"The vLLM server is overloaded: {said}.",
                remedy="Ask again later.",
                retry_after_s=_seconds(reply.retry_after),
            )
        case 400 | 422 if "maximum context length" in said or "max_model_len" in said:
            return ContextTooLong(
                f"The vLLM server's context is shorter: {said}.",
                param="messages",
                remedy="Ask for less, or start vLLM with a larger --max-model-len.",
            )
        case 400 | 422 if request.grammar is not None:
            return UnsupportedField(
                f"The vLLM server cannot follow the form of this answer: {said}.",
                param="response_format",
                remedy="Start vLLM with --structured-outputs-config.backend guidance, or ask "
                "without 'response_format', strict tools and 'tool_choice'.",
            )
        case status if status < 500:
            return InvalidRequest(f"The vLLM server refused the request ({status}): {said}.")
        case status:
            return EngineFailed(f"The vLLM server failed ({status}): {said}.", remedy="Ask again.")


def message_of(reply: Reply) -> str:
    """What a refusal says, shortened."""
    try:
        told = reply.read(dict[str, Any])
    except msgspec.DecodeError:
        return "no reason given"
    return _sentence(told.get("error", told))


def _sentence(told: Any) -> str:
    if isinstance(told, Mapping):
        told = told.get("message") or told.get("detail") or "no reason given"
    return str(told).strip().split("\n")[0].rstrip(".")[:300]


def _seconds(told: str | None) -> float:
    try:
        return max(0.0, float(told or ""))
    except ValueError:
        return _BUSY_S


def _candidates(chosen: float | None, others: Mapping[str, float] | None, top: int) -> Candidates:
    best = sorted(_by_id(others or {}).items(), key=lambda item: -item[1])[:top]
    return Candidates(
        _number(chosen),
        [id for id, _ in best],
        [value for _, value in best],
    )


def _by_id(told: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(name.removeprefix(_MARK)): value for name, value in told.items()}
    except ValueError:
        raise unexpected("candidates that are no ids") from None


def _number(value: float | None) -> float:
    if value is None:
        raise unexpected("a token without its log-probability")
    return value


def unexpected(what: str) -> EngineFailed:
    return EngineFailed(
        f"The vLLM server sent {what}.",
        remedy="See docs/vllm.md for the versions that are known to work.",
    )
