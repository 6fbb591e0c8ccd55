"""What the environment and `afina.toml` say. `os.environ` is read here and nowhere else.

Order: a value given in code (a command's flag), then `AFINA_*` in the environment, then
`DATA/afina.toml`, then the default. An unknown key in the file is an error that names it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from afina.errors import BadSettings, Offline
from afina.outside_settings import (
    HubSettings,
    IntegrationSettings,
    OidcSettings,
    S3Settings,
    VllmSettings,
    WebhookSettings,
)

STARTER = "smollm2-135m-instruct"
_SOCKET_PATH_LIMIT = 100
_KERNELS = "AFINA_KERNELS"
_passed_on: dict[str, str] = {}
"""What `Settings.load` read that processes without settings go by: this one, and its children."""
_HERE = ("127.0.0.1", "::1", "localhost")


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
    """Tokens in the key-value cache, over all sequences."""
    adapters_resident: int = Field(default=64, ge=1)
    adapter_idle_s: float = Field(default=900.0, gt=0)
    own_weights_mb: int = Field(default=4096, ge=1)
    """Megabytes (of a million bytes) for tunes that have weights of their own."""
    threads: int = Field(default=0, ge=0)
    """0: all cores when alone, one while a trainer lives."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    weights: Literal["trained", "int8", "int4"] = "trained"
    """What answers: few bits are quicker for few streams, slower for many (docs/engine.md)."""
    speculation: bool = True
    """Whether tunes' answers are drafted from their training answers (docs/engine.md)."""
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

    @model_validator(mode="after")
    def _whole(self) -> ModerationSettings:
        if self.backend == "endpoint" and not (self.endpoint_url and self.endpoint_model):
            raise ValueError(
                "moderation.backend is endpoint: it needs endpoint_url and endpoint_model too"
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


class Settings(BaseSettings):
    """All settings. `Settings.load` is how the platform gets them."""

    model_config = SettingsConfigDict(
        env_prefix="AFINA_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    data: Path = Path("~/.afina")
    """The data directory."""
    host: str = "127.0.0.1"
    port: int = Field(default=8383, ge=0, le=65535)
    base_url: str | None = None
    """Where the commands find the server; by default the host and port above."""
    api_key: str | None = None
    """The key that the commands use; by default the one in DATA/api-key."""
    database: str | None = Field(default=None, pattern=r"^postgres(ql)?://", repr=False)
    """`postgresql://user:password@host/name`; without it, DATA/afina.db (SQLite)."""
    s3: S3Settings | None = None
    """Where stored files live; without it, in DATA/blobs."""
    organization: str = Field(default="local", pattern=r"^[a-z0-9-]{1,40}$")
    """The third part of tuned models' names."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    model_aliases: dict[str, str] = Field(default_factory=dict)
    """Names that existing scripts use, and the local base that answers for each."""
    shutdown_dates: dict[str, date] = Field(default_factory=dict)
    """By the name of a base or tuned model: the day (UTC) from which it answers no more."""
    prices: dict[str, Price] = Field(default_factory=dict)
    free_training: FreeTraining = Field(default_factory=FreeTraining)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    max_upload_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    redact: RedactSettings = Field(default_factory=RedactSettings)
    moderation: ModerationSettings = Field(default_factory=ModerationSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    oidc: OidcSettings | None = None
    """Who else may vouch for people at the dashboard's sign-in; keys open it always."""
    integrations: IntegrationSettings = Field(default_factory=IntegrationSettings)
    disk: DiskSettings = Field(default_factory=DiskSettings)
    hub: HubSettings = Field(default_factory=HubSettings)
    kernels: Literal["auto", "vectors", "off"] = "auto"
    """Kernels of our own, where processor and compiler allow them; without its matrix tiles; or
    torch alone."""
    offline: bool = False
    """Nothing leaves this machine: no pull from a hub, no webhook, no online integration, no other
    account's API."""

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _one_precision(self) -> Settings:
        """What is trained in one precision and served in another would not pass its parity."""
        trained, served = self.training.precision, self.engine.precision
        if "auto" not in (trained, served) and trained != served:
            raise ValueError(
                f"training.precision is {trained} and engine.precision is {served}: a tune is "
                "served as it was trained, so they must be the same, or one of them auto"
            )
        if self.engine.weights != "trained" and self.precision == "fp32":
            raise ValueError("engine.weights must be trained where the precision is fp32")
        return self

    @model_validator(mode="after")
    def _stays_here(self) -> Settings:
        """Moderation by another machine is told the training rows."""
        url = self.moderation.endpoint_url or ""
        host = urlsplit(url).hostname or ""
        if self.offline and self.moderation.backend == "endpoint" and host not in _HERE:
            raise ValueError("moderation.endpoint_url is not on this machine, and offline is on")
        return self

    def check_online(self, what: str, param: str | None = None) -> None:
        """Raises Offline where the setting `offline` forbids it; `what` opens the sentence."""
        if self.offline:
            raise Offline(
                f"{what}: the setting offline is on, and nothing may leave this machine.",
                param=param,
                remedy="Set offline = false in DATA/afina.toml, or leave it out.",
            )

    @property
    def precision(self) -> Literal["auto", "bf16", "fp32"]:
        """The precision of trainer and engine alike: whichever of the two settings names one."""
        named = self.engine.precision
        return self.training.precision if named == "auto" else named

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Settings from flags, environment and the data directory's `afina.toml`. Raises
        BadSettings naming the setting, where it came from and what is allowed."""
        given = {key: value for key, value in given.items() if value is not None}
        data = Path(given.get("data") or os.environ.get("AFINA_DATA") or "~/.afina").expanduser()
        from_file = _read_toml(data / "afina.toml")
        for key in list(from_file):
            if key in given or f"AFINA_{key.upper()}" in os.environ:
                del from_file[key]
        try:
            settings = cls(**{**from_file, **given})
        except ValidationError as error:
            first = error.errors()[0]
            said = first["msg"].removeprefix("Value error, ")
            name = ".".join(str(part) for part in first["loc"]) or said.split()[0]
            raise BadSettings(
                f"The setting {name} is wrong: {said}.",
                param=name,
                remedy=f"See AFINA_{name.upper().replace('.', '__')} or {data / 'afina.toml'}.",
            ) from None
        _passed_on[_KERNELS] = settings.kernels
        return settings

    @property
    def database_url(self) -> str:
        """Where rows live, as SQLAlchemy writes it."""
        if self.database is None:
            return f"sqlite:///{self.data / 'afina.db'}"
        return "postgresql+psycopg://" + self.database.partition("://")[2]

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def encoders(self) -> Path:
        """The networks that are no base models: the encoder of moderation and embeddings."""
        return self.data / "encoders"

    @property
    def runs(self) -> Path:
        return self.data / "runs"

    @property
    def rates(self) -> Path:
        """What finished runs took, a line a run: estimates learn from it."""
        return self.data / "rates.jsonl"

    @property
    def shards(self) -> Path:
        """What is prepared from a file lies below here, in a folder named by its sha256."""
        return self.data / "shards"

    @property
    def wandb(self) -> Path:
        """Runs that the client of Weights & Biases writes, and what it keeps for itself."""
        return self.data / "wandb"

    @property
    def journal(self) -> Path:
        """Where the engine appends what it used, for the worker to drain."""
        return self.data / "engine" / "usage.jsonl"

    @property
    def vllm_adapters(self) -> Path:
        """Where adapters are written for a vLLM server."""
        given = None if self.engine.vllm is None else self.engine.vllm.adapters
        return self.data / "engine" / "vllm" if given is None else given.expanduser().absolute()

    @property
    def engine_socket(self) -> Path:
        """The engine's unix socket; in the temporary folder where DATA's path is too long."""
        path = self.data / "engine" / "engine.sock"
        if len(str(path)) <= _SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(str(self.data).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"afina-{os.getuid()}-{digest}" / "engine.sock"

    @property
    def server_url(self) -> str:
        """The server that the commands talk to, without a trailing slash or `/v1`."""
        url = self.base_url or f"http://{self.host}:{self.port}"
        return url.rstrip("/").removesuffix("/v1")

    def key_for_commands(self) -> str:
        """The API key of the commands. Raises BadSettings where there is none."""
        if self.api_key:
            return self.api_key
        path = self.data / "api-key"
        try:
            return path.read_text().strip()
        except OSError:
            raise BadSettings(
                f"There is no API key: AFINA_API_KEY is not set and {path} cannot be read.",
                remedy="Start the server with `afina up`, or set AFINA_API_KEY.",
            ) from None

    def price_of(self, base_id: str) -> Price:
        """The price of a base model, else that of `"*"`, else nothing."""
        return self.prices.get(base_id) or self.prices.get("*") or Price()


OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_OFFLINE": "1"}
"""For processes that load models: nothing is looked up anywhere."""


def child_environment(**extra: str) -> dict[str, str]:
    """This process's environment with `extra` on top, for a child process."""
    return {**os.environ, **_passed_on, **extra}


def kernels_wanted() -> str:
    """Which kernels of our own may compute in this process: auto, vectors or off."""
    return _passed_on.get(_KERNELS, os.environ.get(_KERNELS, "auto"))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}.", remedy="Mend or remove it.") from None
