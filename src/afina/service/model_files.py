"""The files of a tuned model as its manifest names them, and its card, so that its owner can take
them away.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import BinaryIO

from afina.domain.accounts import Caller
from afina.domain.manifests import ADAPTER_CONFIG, ADAPTER_GGUF, ADAPTER_WEIGHTS, Manifest
from afina.domain.models import TunedModel
from afina.errors import Forbidden, InvalidRequest, NotFound
from afina.language.strings import LANGUAGES
from afina.service.bases import get_base
from afina.service.card import card_of
from afina.service.card_readme import CARD_FILES, card_files
from afina.service.models import ModelEntry
from afina.service.platform import Platform


def tune_files(platform: Platform, tuned: TunedModel) -> dict[str, str]:
    """File names and the sha256 of their bytes."""
    with platform.blobs.open(tuned.manifest) as handle:
        return dict(Manifest.from_bytes(handle.read()).files)


def open_model_file(
    platform: Platform,
    caller: Caller,
    entry: ModelEntry,
    name: str,
    language: str = LANGUAGES[0],
) -> tuple[BinaryIO, int]:
    """One of a tune's files, open, and its size; or, made here, its adapter as llama.cpp reads it
    and its card: README.md, card.json, card.html, the first and last in the language asked for.
    Raises NotFound, InvalidRequest for a base, and Forbidden for a model that another project lets
    this one use: its weights stay there."""
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
    if name in CARD_FILES:
        made = card_files(card_of(platform, caller, entry.tuned.name), language=language)[name]
        return io.BytesIO(made), len(made)
    files = tune_files(platform, entry.tuned)
    if name == ADAPTER_GGUF:
        return _adapter_gguf(platform, entry.tuned, files)
    sha256 = files.get(name)
    if sha256 is None:
        raise NotFound(f"The model {entry.id} has no file {name[:255]}.", param="file")
    return platform.blobs.open(sha256), platform.blobs.path(sha256).stat().st_size


def _adapter_gguf(
    platform: Platform, tuned: TunedModel, files: dict[str, str]
) -> tuple[BinaryIO, int]:
    """A tune's adapter as llama.cpp reads it. Raises InvalidRequest for a tune without one, and
    BaseRefused for a network that llama.cpp does not know."""
    from afina.model.gguf_export import AdapterFiles, Label, write_adapter

    base = get_base(platform, tuned.base_id)
    if not {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= files.keys():
        raise InvalidRequest(
            f"The model {tuned.name} has weights of its own and no adapter.",
            param="file",
            remedy="Export it whole: `afina models export NAME --format gguf`.",
        )
    if base is None:
        raise NotFound(f"The base {tuned.base_id} is not on this machine.", param="model")
    with tempfile.TemporaryDirectory(prefix="afina-") as room:
        target = Path(room) / ADAPTER_GGUF
        config = platform.blobs.path(files[ADAPTER_CONFIG])
        matrices = platform.blobs.path(files[ADAPTER_WEIGHTS])
        write_adapter(
            AdapterFiles(config, matrices, Path(base.path)),
            target,
            Label(tuned.name, base.licence, {"base": base.id}),
        )
        return target.open("rb"), target.stat().st_size  # the file stays until it is closed
