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
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from afina.errors import BadSettings, Offline
from afina.inside_settings import (
    DiskSettings,
    EngineSettings,
    FreeTraining,
    GateSettings,
    LimitSettings,
    ModerationSettings,
    Price,
    RedactSettings,
    TrainingSettings,
    WatchSettings,
    WorkerSettings,
)
from afina.outside_settings import (
    HubSettings,
    IntegrationSettings,
    OidcSettings,
    S3Settings,
    WebhookSettings,
)

STARTER = "smollm2-135m-instruct"
_SOCKET_PATH_LIMIT = 100
_KERNELS = "AFINA_KERNELS"
_passed_on: dict[str, str] = {}
"""What `Settings.load` read that processes without settings go by: this one, and its children."""
_HERE = ("127.0.0.1", "::1", "localhost")


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
    kernels: Literal["auto", "vectors", "wide", "halves", "off"] = "auto"
    """Kernels of our own, where processor and compiler allow them; `vectors` without matrix tiles,
    `wide` without bf16 products too, `halves` without AVX-512; `off` is torch alone."""
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
    def engine_folder(self) -> Path:
        """What the engine and its supervisor write."""
        return self.data / "engine"

    @property
    def journal(self) -> Path:
        """Where the engine appends what it used, for the worker to drain."""
        return self.engine_folder / "usage.jsonl"

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
    """Which kernels of our own may compute in this process: auto, vectors, wide, halves or off."""
    return _passed_on.get(_KERNELS, os.environ.get(_KERNELS, "auto"))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}.", remedy="Mend or remove it.") from None
