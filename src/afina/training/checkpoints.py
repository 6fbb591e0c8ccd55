"""Checkpoints: everything a run needs to go on as if nothing had happened.

A checkpoint is a folder that appears whole: files, then `record.json` with their hashes, then the
rename that makes it visible. On start the newest one whose hashes hold is taken. Adapters are
written twice: in bf16 as they are published, and as fp32 masters.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch

from afina.domain.codec import decode, encode
from afina.domain.runs import RECORD, CheckpointRecord, RunPaths
from afina.model.kernels.library import loaded
from afina.training.tensor_files import Pieces

STATE: Final = "state.json"
_NAME: Final = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class RunState:
    """Where a run stands: state.json. Everything random follows from the seed and `step`."""

    step: int
    trained_tokens: int
    learned_tokens: int
    train_seconds: float
    metrics: Mapping[str, float]
    best_loss: float | None = None
    """The lowest validation loss at the end of an epoch."""
    best_step: int = 0
    stale_epochs: int = 0
    """Epochs since the loss fell by what early stopping asks for."""


@dataclass(frozen=True)
class Found:
    """A checkpoint on disk whose hashes hold."""

    folder: Path
    record: CheckpointRecord
    state: RunState


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made from, beside the weights."""

    state: RunState
    epoch: int
    kind: Literal["epoch", "resume"]
    events_bytes: int
    next_sequence: int
    environment: Mapping[str, str]
    more: Mapping[str, bytes] = field(default_factory=dict)
    """Other files of the state."""


def write_checkpoint(paths: RunPaths, snapshot: Snapshot, contents: Mapping[str, Pieces]) -> Path:
    """Writes a checkpoint of these files and those of the snapshot, durably; its folder."""
    step = snapshot.state.step
    target = paths.checkpoints / f"step-{step}"
    partial = paths.checkpoints / f".step-{step}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {STATE: (_json_bytes(snapshot.state),)}
    more = {name: (raw,) for name, raw in snapshot.more.items()}
    hashes = {
        name: _write(partial / name, pieces)
        for name, pieces in {**contents, **state, **more}.items()
    }
    record = CheckpointRecord(
        format=1,
        step=step,
        epoch=snapshot.epoch,
        kind=snapshot.kind,
        events_bytes=snapshot.events_bytes,
        next_sequence=snapshot.next_sequence,
        trained_tokens=snapshot.state.trained_tokens,
        metrics=snapshot.state.metrics,
        files=hashes,
        environment=snapshot.environment,
    )
    _write(partial / RECORD, (_json_bytes(record),))
    _sync_folder(partial)
    if target.exists():
        # of the same step, left by an attempt whose record or hashes did not hold
        shutil.rmtree(target)
    partial.rename(target)
    _sync_folder(paths.checkpoints)
    return target


def newest_checkpoint(paths: RunPaths, *, deep: bool = True) -> Found | None:
    """The newest checkpoint that is whole; what is damaged or half written is passed over."""
    events = paths.events.stat().st_size if paths.events.exists() else 0
    for folder in reversed(_folders(paths)):
        found = read_checkpoint(folder, deep=deep)
        if found is not None and found.record.events_bytes <= events:
            return found
    return None


def read_checkpoint(folder: Path, *, deep: bool = True) -> Found | None:
    """The checkpoint in `folder`, or None if it is not whole. `deep` checks every hash."""
    try:
        record = decode(CheckpointRecord, json.loads((folder / RECORD).read_bytes()), RECORD)
        state = decode(RunState, json.loads((folder / STATE).read_bytes()), STATE)
        for name, sha256 in record.files.items():
            if deep and hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                return None
    except (OSError, ValueError):
        return None
    return Found(folder, record, state)


def sweep_checkpoints(paths: RunPaths, keep_epochs: int, best_step: int = 0) -> list[Found]:
    """Removes half-written folders, epoch checkpoints beyond the newest `keep_epochs` (never that
    of `best_step`) and resume checkpoints older than the newest of all; returns the kept epoch
    checkpoints, oldest first."""
    if not paths.checkpoints.exists():
        return []
    for path in paths.checkpoints.glob(".step-*.part"):
        shutil.rmtree(path, ignore_errors=True)
    folders = _folders(paths)
    found = [one for one in (read_checkpoint(f, deep=False) for f in folders) if one is not None]
    epochs = [one for one in found if one.record.kind == "epoch"]
    newest = epochs[-keep_epochs:] if keep_epochs > 0 else []
    kept = [one for one in epochs if one in newest or one.record.step == best_step]
    for one in found[:-1]:
        if one not in kept:
            _remove(one.folder)
    return kept


def remove_beyond(paths: RunPaths, step: int) -> None:
    """Removes checkpoints of later steps than `step`: they were found damaged."""
    for folder in _folders(paths):
        match = _NAME.fullmatch(folder.name)
        if match is not None and int(match[1]) > step:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Hides a checkpoint before its files go, so that a kill leaves no half of it in sight."""
    hidden = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _folders(paths: RunPaths) -> list[Path]:
    if not paths.checkpoints.exists():
        return []
    named = ((_NAME.fullmatch(p.name), p) for p in paths.checkpoints.iterdir())
    return [p for _, p in sorted((int(m[1]), p) for m, p in named if m is not None)]


def environment_of(threads: int, processes: int = 1) -> dict[str, str]:
    """What a bit-identical resume depends on beside the files."""
    return {
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "kernels": loaded().name,
        "threads": str(threads),
        "processes": str(processes),
    }


def _json_bytes(value: object) -> bytes:
    text = json.dumps(encode(value), indent=2, sort_keys=True, allow_nan=False)
    return text.encode() + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all, and durably."""
    write_file(path, _json_bytes(value))


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all, and durably."""
    partial = path.with_name(f".{path.name}.part")
    _write(partial, (content,))
    partial.replace(path)
    _sync_folder(path.parent)


def _write(path: Path, pieces: Pieces) -> str:
    """Writes a file durably; its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
