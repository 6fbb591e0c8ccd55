"""`afina backup` and `afina restore`: a whole data directory, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_bytes, in_count, print_facts, print_json, tell


def backup(
    to: Annotated[
        Path, typer.Option("--to", help="A new or empty folder, or a file that ends with .tar.")
    ],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the data directory, while the platform may go on: rows, blobs, unfinished runs, keys;
    not the base models, which can be pulled again."""
    from afina.service.backup import backup as make_backup
    from afina.service.platform import Platform

    platform = Platform.open(load_settings(data))
    try:
        report = make_backup(platform, to)
    finally:
        platform.close()
    if json:
        print_json({"path": str(to), "parts": report.parts, "bytes": report.bytes})
        return
    print_facts(
        {
            "written": str(to),
            "parts": in_count(report.parts),
            "size": in_bytes(report.bytes),
            "base models needed": ", ".join(report.bases) or "none",
        }
    )
    tell("It holds API keys and training data: keep it as you keep those.")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `afina backup` wrote.")],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make a data directory from a backup; every byte is checked, and an older one is brought up
    to date."""
    from afina.service.backup import restore as restore_backup

    settings = load_settings(data)
    report = restore_backup(source, settings)
    if json:
        print_json({"path": str(report.path), "parts": report.parts, "bytes": report.bytes})
        return
    print_facts({"restored": str(report.path), "parts": in_count(report.parts)})
    missing = [base for base in report.bases if not (settings.models / base).is_dir()]
    for base in missing:
        tell(f"Pull the base model again: afina models pull {base}")
