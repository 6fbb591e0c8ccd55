"""Settles how a job tunes: defaults for what was left open, refusals for what does not fit.

What fits depends on the base (its layers), on the tune that the job continues from (which keeps
its kind, rank and targets), and on what the engine serves. A settled extension has a value in
every field of its kind, so a job's answer says what will happen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.domain.manifests import ADAPTER_CONFIG, SERVED, Manifest, TuneKind
from afina.domain.methods import DEFAULT_RANK, FIELDS, Extension, Tuning, TuningKind
from afina.domain.models import BaseModel, TunedModel
from afina.domain.runs import LoraSpec
from afina.errors import BaseRefused, InvalidRequest, UnsupportedField
from afina.service import models
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store.database import Tx
from afina.store.references import Holder, add_reference

TUNE_KINDS: Final[Mapping[TuningKind, TuneKind]] = {
    "lora": "lora",
    "dora": "dora",
    "full": "full",
    "last_layers": "blocks",
}
_TUNING_KINDS: Final[Mapping[TuneKind, TuningKind]] = {v: k for k, v in TUNE_KINDS.items()}
_PARAM: Final = "afina.tuning"


@dataclass(frozen=True)
class Parent:
    """The tune that a job continues from."""

    model: TunedModel
    manifest: Manifest
    tuning: Tuning
    """Settled, as that tune was made."""


def find_parent(platform: Platform, caller: Caller, name: str) -> Parent:
    """The tuned model or checkpoint of that name. Raises ModelNotFound, BaseRefused."""
    resolved = models.resolve_model(platform, caller, name)
    assert resolved.tuned is not None
    manifest = Manifest.from_bytes(platform.blobs.read(resolved.tuned.manifest))
    if manifest.base_sha256 != resolved.base.sha256:
        raise BaseRefused(
            f"The model `{name}` was tuned on a base model {resolved.base.id} with other weights "
            "than the one that is here now.",
            param="model",
            remedy="Pull the base as it was, or tune the base itself.",
        )
    return Parent(resolved.tuned, manifest, _tuning_of(platform, manifest))


def hold_parent(tx: Tx, parent: Parent, job_id: str) -> None:
    """Keeps the parent's blobs for as long as the job lives, whoever deletes the model."""
    for sha256 in (parent.model.manifest, *sorted(set(parent.manifest.files.values()))):
        add_reference(tx, sha256, Holder("job", job_id))


def settle(
    settings: Settings,
    base: BaseModel,
    asked: Extension,
    parent: Parent | None,
    *,
    has_validation: bool,
    kind_given: bool = True,
) -> Extension:
    """`asked` with every field of its kind of tuning; where no kind was given it is that of the
    tune that the job continues from. Raises InvalidRequest or UnsupportedField with the path of the
    first field that does not fit."""
    tuning = asked.tuning
    if parent is not None and not kind_given:
        tuning = replace(tuning, kind=parent.tuning.kind)
    if tuning.foreign is not None:
        known = ", ".join(sorted(FIELDS[tuning.kind]))
        raise InvalidRequest(
            f"Invalid '{_PARAM}.{tuning.foreign}': tuning of kind '{tuning.kind}' has no such "
            f"field; {f'it has {known}' if known else 'leave it out, this kind has no fields'}.",
            param=f"{_PARAM}.{tuning.foreign}",
            code="invalid_value",
        )
    settled = _continued(tuning, parent) if parent else _with_defaults(settings, base, tuning)
    if TUNE_KINDS[settled.kind] not in SERVED:
        raise UnsupportedField(
            f"Tuning of kind '{settled.kind}' is not offered yet: the engine cannot serve it.",
            param=f"{_PARAM}.kind",
            code="unsupported_value",
            remedy=f"Use {' or '.join(k for k, v in TUNE_KINDS.items() if v in SERVED)}.",
        )
    for name in ("early_stopping", "best_checkpoint"):
        if getattr(asked, name) and not has_validation:
            raise InvalidRequest(
                f"'afina.{name}' goes by the validation loss, and the job has no validation_file.",
                param=f"afina.{name}",
                code="invalid_value",
                remedy="Name a validation_file, or leave it out.",
            )
    return replace(asked, tuning=settled)


def _with_defaults(settings: Settings, base: BaseModel, asked: Tuning) -> Tuning:
    if asked.kind == "full":
        return asked
    if asked.kind == "last_layers":
        blocks = _blocks(settings, base)
        layers = max(1, blocks // 4) if asked.layers is None else asked.layers
        if layers > blocks:
            raise InvalidRequest(
                f"Invalid '{_PARAM}.layers': the base model {base.id} has {blocks} layers.",
                param=f"{_PARAM}.layers",
                code="invalid_value",
            )
        return replace(asked, layers=layers, norm_and_head=bool(asked.norm_and_head))
    possible = tuple(base.capabilities.get("lora_targets") or LoraSpec().target_modules)
    modules = asked.target_modules or tuple(sorted(possible))
    unknown = sorted(set(modules) - set(possible))
    if unknown:
        raise InvalidRequest(
            f"Invalid '{_PARAM}.target_modules': the base model {base.id} has no linear layers "
            f"'{unknown[0]}'; it has {', '.join(possible)}.",
            param=f"{_PARAM}.target_modules",
            code="invalid_value",
        )
    rank = asked.rank or DEFAULT_RANK
    return replace(
        asked,
        rank=rank,
        alpha=2.0 * rank if asked.alpha is None else asked.alpha,
        dropout=asked.dropout or 0.0,
        target_modules=modules,
        rank_stabilised=bool(asked.rank_stabilised),
        base_bits=asked.base_bits or 16,
    )


def _continued(asked: Tuning, parent: Parent) -> Tuning:
    """The parent's tuning with what this job says about dropout and the base's bits, which leave no
    trace in a tune's shape; anything else that differs is refused."""
    made = parent.tuning
    if asked.kind != made.kind:
        raise _differs(parent, "kind", made.kind)
    for name, value in asked.given.items():
        if name not in ("dropout", "base_bits") and value != getattr(made, name):
            raise _differs(parent, name, getattr(made, name))
    if made.kind in ("lora", "dora"):
        bits = asked.base_bits or made.base_bits
        return replace(made, dropout=asked.dropout or 0.0, base_bits=bits)
    return made


def _differs(parent: Parent, name: str, value: object) -> InvalidRequest:
    shown = ", ".join(value) if isinstance(value, tuple) else json.dumps(value).strip('"')
    return InvalidRequest(
        f"Invalid '{_PARAM}.{name}': the job continues from `{parent.model.name}`, which was tuned "
        f"with {name} {shown}, and a continued tune keeps it.",
        param=f"{_PARAM}.{name}",
        code="invalid_value",
        remedy=f"Ask for the same {name} or leave it out, or tune the base model.",
    )


def _tuning_of(platform: Platform, manifest: Manifest) -> Tuning:
    kind = _TUNING_KINDS[manifest.kind]
    if kind == "full":
        return Tuning("full")
    if kind == "last_layers":
        settings = manifest.settings
        head = settings["norm_and_head"] == "true"
        return Tuning(kind, layers=int(settings["layers"]), norm_and_head=head)
    config: dict[str, Any] = json.loads(platform.blobs.read(manifest.files[ADAPTER_CONFIG]))
    return Tuning(
        kind,
        rank=int(config["r"]),
        alpha=float(config["lora_alpha"]),
        dropout=0.0,
        target_modules=tuple(sorted(config["target_modules"])),
        rank_stabilised=bool(config.get("use_rslora")),
        base_bits=4 if manifest.settings.get("base_bits") == "4" else 16,
    )


def _blocks(settings: Settings, base: BaseModel) -> int:
    """How many layers the base has, by its config.json."""
    path = settings.models / base.id / "config.json"
    try:
        config = json.loads(path.read_bytes())
        blocks = (config.get("text_config") or config)["num_hidden_layers"]
        return int(blocks)
    except (OSError, ValueError, LookupError, TypeError):
        raise BaseRefused(
            f"{path} does not say how many layers the model has.",
            param="model",
            remedy="Pull the base model again.",
        ) from None
