"""The stage of a job's road that takes personal data out of a file before it is tokenised.

A function of the file's bytes, the kinds and the stage's version; the folder's name is their hash:

    rows.jsonl     the file, line by line, without personal data
    audit.jsonl    line, field, kind, rule and placeholder of each place; never a value
    report.json    RedactionReport, written last; where it stands, the folder is whole
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from afina.data.personal.redaction import VERSION, RedactionReport, redact_file
from afina.data.personal.spans import PersonalKind
from afina.data.shard_files import replace_file
from afina.domain.codec import decode, encode


@dataclass(frozen=True)
class Scrubbed:
    """A file without personal data, the record of what was taken out, and its sum."""

    rows: Path
    audit: Path
    report: RedactionReport


def scrub(
    blob: Path,
    source_sha256: str,
    target: Path,
    kinds: frozenset[PersonalKind],
    progress: Callable[[int, int], None] | None = None,
) -> Scrubbed:
    """The scrubbed file in a folder under `target`; where it stands already, only that."""
    parts = "\0".join((str(VERSION), source_sha256, *sorted(kinds)))
    folder = target / f"scrubbed-{hashlib.sha256(parts.encode()).hexdigest()[:32]}"
    rows, audit, summary = (folder / name for name in ("rows.jsonl", "audit.jsonl", "report.json"))
    if not summary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        report, _ = redact_file(blob, rows, kinds=kinds, audit=audit, progress=progress)
        replace_file(summary, json.dumps(encode(report), indent=1).encode())
    return Scrubbed(rows, audit, decode(RedactionReport, json.loads(summary.read_bytes())))
