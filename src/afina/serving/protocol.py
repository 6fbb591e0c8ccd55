"""The engine's protocol: HTTP over a unix socket, one JSON object a line. No torch here.

    GET  /health            EngineHealth
    GET  /metrics           what Prometheus reads
    POST /generate          Generate  -> a line a Delta, then exactly one Final or Failure line
    POST /score             Score     -> Scored or Failure, one line
    POST /trainers          Trainers  -> {} : how many trainers share the machine, renewed in time
    POST /forget            Forget    -> {} : drop an adapter from memory, and what was cached of it

A request names a base id and, for a tuned model, the sha256 of its manifest blob; the engine reads
DATA/models and DATA/blobs itself. It knows no public names, projects or keys: `tag` is copied into
the usage journal as it is. A request that cannot start is a Failure with an HTTP status; a stream
that breaks off ends with a Failure line, never with silence. Whether a base is computed here or by
a vLLM server behind the engine (`afina.serving.vllm`) changes nothing of this.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Generate(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One request for answers. `seed` is always given: the api draws one where the user did not."""

    request_id: str
    base: str
    prompt: list[int]
    max_tokens: int
    seed: int
    adapter: str | None = None
    namespace: str = ""
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    """Added to the scores of these ids before temperature."""
    grammar: str | None = None
    """What the answer must follow, in llguidance's own forms (see `afina.text.grammars`)."""
    stop: list[str] = []
    end_tokens: list[int] = []
    """Ids that end an answer (the template's end of turn); their text is not part of it."""
    visible: list[int] = []
    """Control tokens whose text is part of an answer: the marks of calls, say. No others are."""
    logprobs: int | None = None
    """None: none; k: the chosen token's and the k best (0 to 20) at each position."""
    background: bool = False
    """Nobody waits for it: requests of others go first."""
    tag: dict[str, str] = {}


class TopLogprob(msgspec.Struct, array_like=True):
    """A candidate: its id, text bytes (as latin-1 text) and log-probability."""

    id: int
    bytes: str
    logprob: float


class TokenLogprob(msgspec.Struct, omit_defaults=True):
    """The chosen token at one position and the best candidates there."""

    id: int
    bytes: str
    """The token's bytes, each as one character of latin-1."""
    logprob: float
    top: list[TopLogprob] = []


class Delta(msgspec.Struct, omit_defaults=True, tag_field="t", tag="delta"):
    """More of answer `choice`. `text` never splits a character and never holds part of a stop
    string; `finish` is set once per choice, on its last delta."""

    choice: int = 0
    ids: list[int] = []
    text: str = ""
    logprobs: list[TokenLogprob] = []
    finish: str | None = None


class Final(msgspec.Struct, tag_field="t", tag="final"):
    """The end: what was used, over all choices. Written to the journal before it is sent."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Failure(msgspec.Struct, omit_defaults=True, tag_field="t", tag="failure"):
    """The end of a request that was refused or broke off. `kind` is the name of the class in
    `afina.errors` that the client raises."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    remedy: str | None = None


Line = Delta | Final | Failure


class Score(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Log-probabilities of given continuations. What has a `request_id` is metered: prompt and ids
    together are its prompt, and nothing is its completion."""

    base: str
    prompt: list[int]
    ids: list[int]
    adapter: str | None = None
    top: int = 20
    request_id: str = ""
    background: bool = False
    """Nobody waits for it: requests of others go first."""
    tag: dict[str, str] = {}


class Scored(msgspec.Struct, tag_field="t", tag="scored"):
    """Position by position: the log-probability of `ids`, and the `top` best ids with theirs."""

    logprobs: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]
    precision: str = "bf16"
    engine: str = "afina"
    """Whose arithmetic it is: the engine's own, or that of the server behind it by its version."""


class Trainers(msgspec.Struct, forbid_unknown_fields=True):
    """How many trainers run beside the engine; forgotten after `ttl_s` unless renewed."""

    count: int
    ttl_s: float = 30.0


class Forget(msgspec.Struct, forbid_unknown_fields=True):
    """Drop an adapter by its manifest hash."""

    adapter: str


class EngineHealth(msgspec.Struct):
    """What the engine says of itself."""

    status: str
    """`ok` or `draining`."""
    running: int
    waiting: int
    bases: list[str]
    """Bases in memory."""
    adapters: list[str]
    """Manifest hashes in memory."""
    precision: str
    elsewhere: dict[str, str] = {}
    """Bases that another server answers for, and which one. They are in `bases` while it can be
    reached, and their tunes in `adapters` while it has them."""
    step_s: float = 0.0
    """How long the present step has taken so far; 0 while nothing is computed."""
    memory: dict[str, int] = {}
    """Bytes: `resident` is the process, `weights` and `adapters` what is in memory of each,
    `caches` what the key-value caches take once all of them have been written."""


class UsageRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the usage journal. `request_id` is unique: a replay adds nothing."""

    request_id: str
    time: float
    base: str
    adapter: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    outcome: str
    """`finished`, `left` (the client went away) or `failed`."""
    tag: dict[str, str]


def encode_line(message: Any) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(message) + b"\n"


_LINE: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def decode_line(raw: bytes) -> Line:
    """A line of /generate. Raises msgspec.DecodeError."""
    return _LINE.decode(raw)
