"""What a model's card says of the data, kept apart from the run: DATA/cards/<job>.json.

A run's folder goes with the files of its job, because it holds rows. What is kept here are hashes,
counts and names of rules and categories, and never a text; it goes with the last model of the job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from afina.domain.runs import RunPaths
from afina.service.platform import Platform

FOLDER: Final = "cards"
_FILES: Final = ("training_file", "validation_file")
_MODERATED: Final = ("model", "rows", "flagged_rows", "left_out", "categories")
_REDACTED: Final = ("rows", "rows_changed", "places", "values")


def facts_of(platform: Platform, job_id: str) -> list[dict[str, Any]]:
    """What is known of the files of a job: from its run, else what was kept of it."""
    found = _from_run(RunPaths(platform.settings.runs / job_id).root / "findings")
    if not found:
        kept = _read(_path(platform, job_id)).get("data")
        found = kept if isinstance(kept, list) else []
    return found


def keep_facts(platform: Platform, job_id: str) -> None:
    """Keeps what the run says, where it says anything."""
    found = _from_run(RunPaths(platform.settings.runs / job_id).root / "findings")
    if not found:
        return
    path = _path(platform, job_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_name(f"{path.name}.part")
    fresh.write_text(json.dumps({"data": found}))
    fresh.replace(path)


def forget_facts(platform: Platform, job_id: str) -> None:
    """Nobody has a card any more that says it."""
    _path(platform, job_id).unlink(missing_ok=True)


def _from_run(folder: Path) -> list[dict[str, Any]]:
    made = []
    for which in _FILES:
        found = _read(folder / f"{which}.json")
        if not found:
            continue
        warned = _read(folder / f"{which}.warnings.json")
        checked = _read(folder / f"{which}.moderation.json")
        redacted = _read(folder / f"{which}.redaction.json")
        made.append(
            {
                "which": which,
                "file": found.get("file"),
                "sha256": found.get("sha256"),
                "rows": found.get("rows_total"),
                "rows_used": found.get("rows_usable"),
                "findings": {**found.get("counts", {}), **warned.get("counts", {})},
                "moderation": _some(checked, _MODERATED),
                "redaction": _some(redacted, _REDACTED),
            }
        )
    return made


def _some(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    return {name: found.get(name) for name in names} if found else None


def _path(platform: Platform, job_id: str) -> Path:
    return platform.settings.data / FOLDER / f"{job_id}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
