"""What a run is given, and whether it still is what the job was created with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from afina.domain.codec import decode
from afina.domain.jobs import Wish
from afina.domain.runs import ParentSpec, RunPaths, RunResult, RunSpec
from afina.errors import TrainingFailed
from afina.model.folder import read_record
from afina.training.signals import read_wish


def read_spec(paths: RunPaths) -> RunSpec:
    """The spec of a run. Raises TrainingFailed if it cannot be read."""
    try:
        return decode(RunSpec, json.loads(paths.spec.read_bytes()), "spec")
    except (OSError, ValueError) as error:
        raise TrainingFailed(
            f"The run's spec.json cannot be used: {error}.",
            remedy="Create the job again; run directories are written by the worker alone.",
        ) from None


def check_base(spec: RunSpec) -> None:
    """Raises TrainingFailed if another base model stands where the spec's one stood."""
    record = read_record(Path(spec.base.path))
    if record is not None and record.sha256 != spec.base.sha256:
        raise TrainingFailed(
            f"The base model {spec.base.id} has changed since the job was created.",
            remedy="Create the job again: it will be tuned on the base as it is now.",
        )


def check_files(parent: ParentSpec) -> None:
    """Raises TrainingFailed if the files to go on from are not those of their manifest."""
    for name, sha256 in parent.files.items():
        with (Path(parent.path) / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise TrainingFailed(
                    f"The file {name} of the model that the job continues from is damaged.",
                    remedy="Create the job again.",
                )


def check_sharded(spec: RunSpec) -> None:
    """Raises TrainingFailed if what is to be sharded is not all weights of a supervised run."""
    if spec.sharded and (spec.tune.kind != "full" or spec.method != "supervised"):
        raise TrainingFailed(
            f"A {spec.method} run of kind {spec.tune.kind} cannot be sharded: only supervised runs "
            "in which all weights learn can.",
            remedy="Leave out AFINA_TRAINING__SHARD_FULL_WEIGHTS for such jobs.",
        )


def standing_result(paths: RunPaths) -> RunResult | None:
    """A result that is final; one that says `paused` makes way when nobody wishes a pause."""
    try:
        result = decode(RunResult, json.loads(paths.result.read_bytes()), "result")
    except FileNotFoundError:
        return None
    except ValueError:
        paths.result.unlink()
        return None
    if result.outcome == "paused" and read_wish(paths.control) is not Wish.PAUSE:
        paths.result.unlink()
        return None
    return result
