"""The parts of `afina.settings` that say how this machine works: engine, training, limits, money.

What lies outside of the machine (buckets, hubs, other services) is in `afina.outside_settings`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from afina.outside_settings import VllmSettings


class Price(BaseModel):
    """Dollars per million tokens of one base model; `"*"` in the table is every other base."""

    model_config = ConfigDict(extra="forbid")

    profile: str | None = None
    """A published price list (`afina cost --list`), in place of the four numbers."""
    training: Decimal = Decimal(0)
    input: Decimal = Decimal(0)
    cached_input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)


class EngineSettings(BaseModel):
    """The engine's limits."""

    model_config = ConfigDict(extra="forbid")

    max_batch: int = Field(default=32, ge=1, le=512)
    """Sequences that decode together."""
    max_queue: int = Field(default=256, ge=1)
    """Requests that may wait; one more is a 429."""
    cache_tokens: int = Field(default=65_536, ge=1024)
    """Tokens in the key-value cache of each base in memory, over all its sequences."""
    adapters_resident: int = Field(default=64, ge=1)
    """Adapters in memory, over all bases."""
    adapter_idle_s: float = Field(default=900.0, gt=0)
    own_weights_mb: int = Field(default=4096, ge=1)
    """Megabytes (of a million bytes) for tunes that have weights of their own: these, and the cache
    that each of them has."""
    threads: int = Field(default=0, ge=0)
    """0: all cores when alone, one while a trainer lives."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    weights: Literal["trained", "int8", "int4"] = "trained"
    """What answers: few bits are quicker for few streams, slower for many (docs/engine.md)."""
    speculation: bool = True
    """Whether tunes' answers are drafted from their training answers (docs/engine.md)."""
    hung_after_s: float = Field(default=30.0, ge=0)
    """Seconds without a sign of life after which the engine is ended and started again
    (docs/engine.md); 0: never."""
    vllm: VllmSettings | None = None
    """A vLLM server that answers in this engine's place; without it, the engine answers for all."""


class WorkerSettings(BaseModel):
    """Leases and lanes."""

    model_config = ConfigDict(extra="forbid")

    lease_s: float = Field(default=60.0, gt=0)
    heartbeat_s: float = Field(default=10.0, gt=0)
    poll_s: float = Field(default=0.2, gt=0)
    max_attempts: int = Field(default=20, ge=1)
    """Lives of a trainer in one job before a crash that repeats is called a failure."""


class TrainingSettings(BaseModel):
    """How runs are resolved."""

    model_config = ConfigDict(extra="forbid")

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int = Field(default=0, ge=0)
    """0: all cores of this machine."""
    processes: int = Field(default=1, ge=1, le=256)
    """How many processes share each step of a run; they share the threads too."""
    shard_full_weights: bool = False
    """Whether each of the processes keeps only its part of weights, gradients and moments where all
    weights learn (`full`); other kinds hold their frozen base whole in each."""
    max_row_tokens: int = Field(default=4096, ge=128)
    resume_interval_s: float = Field(default=30.0, gt=0)
    """How often a checkpoint for resuming alone is written between those of the epochs."""

    @model_validator(mode="after")
    def _shared(self) -> TrainingSettings:
        if self.shard_full_weights and self.processes == 1:
            raise ValueError(
                "training.shard_full_weights spreads weights over processes: training.processes "
                "has to be 2 or more"
            )
        return self


class DiskSettings(BaseModel):
    """How much the data directory may hold, and what is removed to stay within it."""

    model_config = ConfigDict(extra="forbid")

    max_bytes: int | None = Field(default=None, ge=10_000_000)
    """Of everything in the data directory; beyond it, uploads and jobs are refused."""
    min_free_bytes: int = Field(default=500_000_000, ge=0)
    """What must stay free on its disk."""
    tunes_unused_days: int | None = Field(default=None, ge=1)
    """Whether tuned models that nobody has asked for so long may be removed to make room."""


class LimitSettings(BaseModel):
    """What every project may ask for of every base and the models tuned from it; None is no limit.
    An admin can change them by project and model."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    requests_per_day: int | None = Field(default=None, ge=0)


class FreeTraining(BaseModel):
    """Training tokens that cost nothing, by day (UTC) and organization, before the day `until`."""

    model_config = ConfigDict(extra="forbid")

    tokens_per_day: int = Field(default=0, ge=0)
    until: date | None = None


MODERATION_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""What texts are flagged as, under the names that OpenAI's moderation gives."""


def _must_be_address(url: str) -> None:
    """Raises ValueError; the address is not repeated, because a password may stand in it."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 80) > 0
    except ValueError:
        whole = False
    if not whole or not url.isprintable() or " " in url:
        raise ValueError(
            "moderation.endpoint_url is no address; one is written http://127.0.0.1:8000/v1"
        )


class ModerationSettings(BaseModel):
    """What happens to rows, questions and answers that moderation flags."""

    model_config = ConfigDict(extra="forbid")

    backend: Literal["local", "endpoint", "off"] = "local"
    """`local`: the model that comes with afina. `endpoint`: a chat model behind an OpenAI-shaped
    API, asked with a policy and answering by schema."""
    endpoint_url: str | None = None
    """As clients write it: `http://127.0.0.1:8000/v1`."""
    endpoint_model: str | None = None
    endpoint_key: str | None = Field(default=None, repr=False)
    policy: Literal["warn", "quarantine", "block"] = "warn"
    """For flagged rows of a job's files: named in the report, left out too, or counted against
    `max_flagged_share`, above which the job fails. Quarantined rows are counted too."""
    categories: dict[str, Literal["warn", "quarantine", "block"]] = Field(default_factory=dict)
    """The policy of single categories."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Scores from which single categories are flagged; 0.5 where none is given."""
    max_flagged_share: float = Field(default=0.05, ge=0, le=1)
    wait_s: float = Field(default=60.0, ge=0, le=3600)
    """How long a job waits for an engine or endpoint that is away where `warn` is the whole policy;
    then its files go unmoderated, and an event says so. Under another policy it waits for ever."""

    @model_validator(mode="after")
    def _whole(self) -> ModerationSettings:
        if self.backend == "endpoint" and not (self.endpoint_url and self.endpoint_model):
            raise ValueError(
                "moderation.backend is endpoint: it needs endpoint_url and endpoint_model too"
            )
        if self.endpoint_url is not None:
            _must_be_address(self.endpoint_url)
        key = self.endpoint_key or ""
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                "moderation.endpoint_key holds a character that no key has: a space, the end of a "
                "line, or one outside ASCII"
            )
        wrong = [v for v in self.thresholds.values() if not 0 < v <= 1]
        if wrong:
            raise ValueError(f"a threshold is above 0 and at most 1, not {wrong[0]}")
        for setting, names in (("categories", self.categories), ("thresholds", self.thresholds)):
            for name in sorted(set(names) - set(MODERATION_CATEGORIES)):
                raise ValueError(
                    f"{setting} names {name!r}, which is no category; the categories are "
                    f"{', '.join(MODERATION_CATEGORIES)}"
                )
        return self


class GateSettings(BaseModel):
    """When the gate holds a model back. Each limit is on a difference that is sure: the lower end
    of its 95 % interval counts."""

    model_config = ConfigDict(extra="forbid")

    max_loss_rise: float = Field(default=0.10, ge=0)
    """Of the validation loss over the base's, in nats a token."""
    max_ability_loss: float = Field(default=1.0, ge=0, le=1)
    """Share of the abilities of the base that the tuned model has lost; 1 only reports it, for a
    model that is tuned to do one thing forgets others (docs/decisions/0190)."""
    max_harm_rise: float = Field(default=0.05, ge=0, le=1)
    """Rise of the share of harmful answers over the base's."""
    max_refusal_rise: float = Field(default=0.25, ge=0, le=1)
    """Rise of the share of refused harmless questions over the base's."""
    max_memorised: float = Field(default=1.0, ge=0, le=1)
    """Share of training answers that come back word for word; 1 only reports it."""


class WatchSettings(BaseModel):
    """The abuse watch over served models; see `docs/moderation.md`."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    """Whether questions and answers are moderated and counted by key and model."""
    action: Literal["alert", "block", "suspend"] = "alert"
    """What happens above the threshold: somebody is told; the key may not ask this model any more;
    the key may ask no model any more."""
    window_hours: int = Field(default=24, ge=1, le=24 * 90)
    least_flagged: int = Field(default=10, ge=1)
    """Flagged texts of a key for a model in the window, below which nothing happens."""
    share: float = Field(default=0.05, ge=0, le=1)
    """Share of the texts that were looked at, below which nothing happens."""
    mask_answers: bool = False
    """Whether personal data and secrets in answers are replaced by placeholders."""
    mask_kinds: tuple[str, ...] = ()
    """As in `afina data redact --kind`; none named: all."""


class RedactSettings(BaseModel):
    """Whether jobs take personal data out of their files before they tokenise them."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    kinds: tuple[str, ...] = ()
    """As in `afina data redact --kind`; none named: all."""
