"""Base models, tuned models and their names."""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BASE_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
SUFFIX: Final = re.compile(r"[a-z0-9-]{1,64}")
_TUNED: Final = re.compile(
    r"ft:(?P<base>[a-z0-9][a-z0-9._-]*):(?P<org>[a-z0-9-]+):(?P<suffix>[a-z0-9-]*)"
    r":(?P<tail>[A-Za-z0-9]{8})(:ckpt-step-(?P<step>\d+))?"
)


def base_slug(hub_id: str) -> str:
    """A public id for a hub id or folder name: `HuggingFaceTB/SmolLM2-135M` is
    `smollm2-135m`."""
    name = hub_id.rstrip("/").split("/")[-1].lower()
    slug = re.sub(r"[^a-z0-9._-]+", "-", name).strip("-._")
    return slug[:96] or "model"


def plain_suffix(given: str) -> str:
    """How a suffix stands in names: `My Model_v2` is `my-model-v2`, and accents fall. Empty where
    no letter or digit of it can stand there."""
    if SUFFIX.fullmatch(given):
        return given
    letters = unicodedata.normalize("NFKD", given.lower())
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:64].rstrip("-")


def tuned_name(base: str, org: str, suffix: str | None, tail: str, step: int | None = None) -> str:
    """`ft:{base}:{org}:{plain suffix or empty}:{8 characters}`, and `:ckpt-step-N` if `step` is
    given."""
    name = f"ft:{base}:{org}:{plain_suffix(suffix or '')}:{tail}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def is_tuned_name(name: str) -> bool:
    """Whether `name` has the form of a tuned model's name."""
    return _TUNED.fullmatch(name) is not None


def short_name(name: str) -> str:
    """A tuned model's name as people tell it from others: `bard · HoFVNseD · 13`, the last for the
    checkpoint of a step. Another name stays as it is."""
    found = _TUNED.fullmatch(name)
    if found is None:
        return name
    parts = (found["suffix"] or found["base"], found["tail"], found["step"])
    return " · ".join(part for part in parts if part)


class ModelState(enum.StrEnum):
    """A tuned model's standing with the gate."""

    CANDIDATE = "candidate"
    RELEASED = "released"
    HELD = "held"


LOSS_WORTH_A_WORD: Final = 0.25
"""Share of the base's abilities; a tune that surely lost more is told so."""


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine, as its record `afina.json` says."""

    id: str
    path: str
    """The folder, absolute."""
    sha256: str
    """A hash over the names and hashes of its files."""
    created_at: int
    hub_id: str | None = None
    licence: str | None = None
    architecture: str = ""
    parameters: int = 0
    context_tokens: int = 0
    admitted: bool = True
    refusal: str | None = None
    """Why the probe did not admit it."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """What the probe measured: precision, training tokens a second, template facts."""


@dataclass(frozen=True)
class TunedModel:
    """A tuned model or one of its checkpoints. `manifest` is the hash of its manifest blob."""

    name: str
    project_id: str
    base_id: str
    manifest: str
    created_at: int
    job_id: str | None = None
    step: int | None = None
    """Set on checkpoints that are not the final model."""
    state: ModelState = ModelState.RELEASED
    parity: Mapping[str, Any] | None = None
    template_sha256: str | None = None
    rendered_at: int | None = None
    """The moment that its template was told in training, where the template asks for one."""
