"""`afina export`: all that the project owns, in a folder that needs no afina to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_bytes, in_count, print_facts, print_json


def export(
    to: Annotated[
        Path, typer.Option("--to", help="A new or empty folder, or a file that ends with .tar.")
    ],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Hand over everything: files, jobs, events, models and the ledger, on the server's machine."""
    from afina.domain.codec import encode
    from afina.service.export import export_project
    from afina.service.keys import authenticate
    from afina.service.platform import Platform

    settings = load_settings(data)
    secret = settings.key_for_commands()
    platform = Platform.open(settings)
    try:
        report = export_project(platform, authenticate(platform, secret), to.absolute())
    finally:
        platform.close()
    if json:
        print_json(encode(report) | {"path": str(report.path)})
        return
    print_facts(
        {
            "written": str(report.path),
            "files": in_count(report.files),
            "jobs": in_count(report.jobs),
            "models": in_count(report.models),
            "ledger entries": in_count(report.ledger_entries),
            "size": in_bytes(report.bytes),
        }
    )
