"""The files of a tuned model as its manifest names them, so that its owner can take them away."""

from __future__ import annotations

from typing import BinaryIO

from afina.domain.accounts import Caller
from afina.domain.manifests import Manifest
from afina.domain.models import TunedModel
from afina.errors import Forbidden, InvalidRequest, NotFound
from afina.service.models import ModelEntry
from afina.service.platform import Platform


def tune_files(platform: Platform, tuned: TunedModel) -> dict[str, str]:
    """File names and the sha256 of their bytes."""
    with platform.blobs.open(tuned.manifest) as handle:
        return dict(Manifest.from_bytes(handle.read()).files)


def open_model_file(
    platform: Platform, caller: Caller, entry: ModelEntry, name: str
) -> tuple[BinaryIO, int]:
    """One of a tune's files, open, and its size. Raises NotFound, InvalidRequest for a base, and
    Forbidden for a model that another project lets this one use: its weights stay there."""
    if entry.tuned is None:
        raise InvalidRequest(
            f"The model {entry.id} is a base; its files are in the data directory.", param="model"
        )
    if entry.tuned.project_id != caller.project_id:
        raise Forbidden(
            f"The model {entry.id} belongs to another project, which lets this one use it; its "
            "files stay there.",
            param="model",
            code="insufficient_permissions",
        )
    sha256 = tune_files(platform, entry.tuned).get(name)
    if sha256 is None:
        raise NotFound(f"The model {entry.id} has no file {name[:255]}.", param="file")
    return platform.blobs.open(sha256), platform.blobs.path(sha256).stat().st_size
