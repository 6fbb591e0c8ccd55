"""Base models on this machine: what DATA/models holds, and which names mean them.

The record `afina.json` is written last when a base is pulled; a folder without one does not exist
yet. Nothing here loads a model or asks anybody outside.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Final

import structlog

from afina.domain.codec import decode
from afina.domain.models import BASE_ID, BaseModel
from afina.errors import ModelNotTunable
from afina.service.platform import Platform

RECORD: Final = "afina.json"
_LOG = structlog.get_logger(__name__)


def list_bases(platform: Platform, *, admitted_only: bool = True) -> list[BaseModel]:
    """The base models here, by id."""
    root = platform.settings.models
    if not root.is_dir():
        return []
    found = [_read(folder) for folder in sorted(root.iterdir()) if BASE_ID.fullmatch(folder.name)]
    return [base for base in found if base is not None and (base.admitted or not admitted_only)]


def get_base(platform: Platform, base_id: str) -> BaseModel | None:
    """The base of that id, admitted or not."""
    if BASE_ID.fullmatch(base_id) is None:
        return None
    return _read(platform.settings.models / base_id)


def resolve_base(platform: Platform, name: str) -> BaseModel | None:
    """The admitted base that `name` means, by id or by the alias table."""
    base = get_base(platform, platform.settings.model_aliases.get(name, name))
    return base if base is not None and base.admitted else None


def tunable_base(platform: Platform, name: str) -> BaseModel:
    """The base that a job for `name` tunes. Raises ModelNotTunable with what can be tuned."""
    base = resolve_base(platform, name)
    if base is not None:
        return base
    refused = get_base(platform, platform.settings.model_aliases.get(name, name))
    reason = f" It was refused: {refused.refusal}" if refused and refused.refusal else ""
    raise ModelNotTunable(
        f"The model `{name[:200]}` is not available for fine-tuning or does not exist.{reason} "
        f"{_choices(platform)}",
        param="model",
        remedy="Or let this name mean one of them with model_aliases in afina.toml.",
    )


def _choices(platform: Platform) -> str:
    names = [base.id for base in list_bases(platform)]
    aliases = platform.settings.model_aliases
    names += sorted(alias for alias, base in aliases.items() if base in names)
    if not names:
        return "No base model is installed: pull one with `afina models pull`."
    return f"Models that can be tuned here: {', '.join(names)}."


def _read(folder: Path) -> BaseModel | None:
    try:
        record = folder / RECORD
        status = record.stat()
        return _decoded(record, (status.st_ino, status.st_mtime_ns, status.st_size))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        # One damaged record must not hide the other models.
        _LOG.warning("base_record_unreadable", folder=str(folder), reason=str(error))
        return None


@functools.lru_cache(maxsize=256)
def _decoded(record: Path, stamp: tuple[int, int, int]) -> BaseModel:  # noqa: ARG001
    """Every chat request asks for a base; a record is read again once its file has changed."""
    return decode(BaseModel, json.loads(record.read_bytes()), RECORD)
