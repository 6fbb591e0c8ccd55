"""Settings of what lies outside this machine: other servers that afina asks, or tells something.

`afina.settings` reads them, under the names that they have there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class VllmSettings(BaseModel):
    """A vLLM server that answers for bases and their LoRA tunes (docs/vllm.md)."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$")
    """Where it listens: `http://127.0.0.1:8000`."""
    key: str | None = Field(default=None, repr=False)
    """What it was started with as `--api-key`."""
    models: dict[str, str] = Field(default_factory=dict)
    """The bases that it answers for, and their names there; none named: every base of this machine
    whose id it lists."""
    adapters: Path | None = None
    """The folder that adapters are written to for it; without one, DATA/engine/vllm."""
    adapters_there: str | None = None
    """That folder as vLLM sees it, in a container or on another machine."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """What it computes in, for the limits of the parity record."""
    timeout_s: float = Field(default=600.0, gt=0)
    """How long it may say nothing in the middle of an answer."""

    @field_validator("url")
    @classmethod
    def _bare(cls, value: str) -> str:
        return value.rstrip("/").removesuffix("/v1")


class WebhookSettings(BaseModel):
    """Where webhooks may be sent."""

    model_config = ConfigDict(extra="forbid")

    allow_private: bool = False
    """Whether receivers may be in your own network, and plain http."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)


class WandbSettings(BaseModel):
    """Weights & Biases, for jobs that name it in `integrations`."""

    model_config = ConfigDict(extra="forbid")

    api_key: str | None = Field(default=None, repr=False)
    """Of the account that runs are written to; it goes to that service alone."""
    mode: Literal["online", "offline"] = "online"
    """`offline`: runs are written to DATA/wandb when their job ends; `wandb sync` sends them."""
    base_url: str | None = Field(default=None, pattern=r"^https?://[^/@\s]+$")
    """Of a server of your own."""


class MlflowSettings(BaseModel):
    """An MLflow tracking server, for jobs that name it in `integrations`."""

    model_config = ConfigDict(extra="forbid")

    tracking_uri: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """Such as `http://10.0.0.5:5000`, without user and password."""
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    token: str | None = Field(default=None, repr=False)
    """A bearer token, in place of user and password."""


class IntegrationSettings(BaseModel):
    """Where jobs may have their metrics sent."""

    model_config = ConfigDict(extra="forbid")

    wandb: WandbSettings = Field(default_factory=WandbSettings)
    mlflow: MlflowSettings = Field(default_factory=MlflowSettings)
    timeout_s: float = Field(default=60.0, gt=0, le=600)
    """For one round of telling one of them."""


class OidcSettings(BaseModel):
    """A provider that says who people are, for the sign-in of the dashboard (OpenID Connect)."""

    model_config = ConfigDict(extra="forbid")

    issuer: str = Field(pattern=r"^https?://[!-~]{1,500}$")
    """As the provider writes it in its tokens, such as `https://login.example.com/realms/main`."""
    client_id: str = Field(min_length=1, max_length=500)
    client_secret: str | None = Field(default=None, repr=False)
    """None for a public client, which PKCE alone protects."""
    allowed_domains: tuple[str, ...] = ()
    """Who may come in by the domain of the e-mail address; none: every user of the organization."""
    name: str = Field(default="OpenID Connect", min_length=1, max_length=60)
    """What the button says."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[!-~]{1,200}$")
    """Where browsers find this server; by default the address that they asked for. The provider
    sends them back to `/sign-in/oidc/callback` there."""
    unverified_email: bool = False
    """Whether to believe addresses of which the provider does not say that it verified them."""
    session_hours: float = Field(default=12.0, gt=0, le=720)
    allow_private: bool = False
    """Whether the provider may be in your own network, and plain http."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)


class HubSettings(BaseModel):
    """How `afina models pull` reaches a model hub; nothing else uses these."""

    model_config = ConfigDict(extra="forbid")

    token: str | None = Field(default=None, repr=False)
    """For gated and private models; without one, what huggingface_hub finds by itself."""
    proxy: str | None = Field(default=None, pattern=r"^https?://\S+$", repr=False)
    """Such as `http://10.0.0.5:3128`; without one, what the environment says."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """Of a mirror."""


class S3Settings(BaseModel):
    """A bucket for stored files, for several machines on one database."""

    model_config = ConfigDict(extra="forbid")

    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    """Of a server that is not Amazon's, such as `http://10.0.0.5:9000`."""
    access_key_id: str | None = Field(default=None, repr=False)
    """Without one, what the machine's own role says."""
    secret_access_key: str | None = Field(default=None, repr=False)
