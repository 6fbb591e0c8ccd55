"""`afina disk`: what holds the data directory of this machine, and making room."""

from __future__ import annotations

from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, YesOption, load_settings
from afina.cli.terminal import agreed, in_bytes, print_facts, print_json, print_table, tell

app = typer.Typer(
    help="See what holds the data directory of this machine, and make room.", no_args_is_help=True
)


@app.command()
def show(data: DataOption = None, json: JsonOption = False) -> None:
    """Show what holds the data directory, by kind, beside its budget."""
    from dataclasses import asdict

    from afina.service.disk import measure
    from afina.service.platform import Platform

    platform = Platform.open(load_settings(data))
    try:
        with platform.database.read() as tx:
            found = measure(platform.settings, tx)
    finally:
        platform.close()
    if json:
        print_json(asdict(found))
        return
    sizes = sorted(found.kinds.items(), key=lambda one: -one[1])
    print_table(("kind", ">size"), ((kind, in_bytes(size)) for kind, size in sizes if size))
    budget = "no limit" if found.max_bytes is None else f"of at most {in_bytes(found.max_bytes)}"
    print_facts(
        {
            "all": f"{in_bytes(found.total)}, {budget}",
            "free": f"{in_bytes(found.free)}, {in_bytes(found.min_free_bytes)} must stay",
            "stored answers": f"about {in_bytes(found.kept_answers)} of the database",
        }
    )


@app.command()
def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    tunes: Annotated[
        int | None,
        typer.Option(
            "--tunes-unused",
            metavar="DAYS",
            min=1,
            help="Remove tuned models too that nobody has asked for so long.",
        ),
    ] = None,
    yes: YesOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Remove what nothing needs: orphaned blobs, shards, checkpoints of jobs that are over; tuned
    models only where days are given. The platform may go on meanwhile."""
    from dataclasses import asdict

    from afina.service.disk import clean as clean_disk
    from afina.service.platform import Platform

    platform = Platform.open(load_settings(data))
    try:
        if tunes is not None and not dry_run:
            doomed = [r for r in clean_disk(platform, tunes, dry_run=True) if r.kind == "tunes"]
            if doomed and not agreed(f"Delete {len(doomed)} tuned models for good?", yes):
                raise typer.Exit(1)
        gone = clean_disk(platform, tunes, dry_run=dry_run)
    finally:
        platform.close()
    if json:
        print_json([asdict(removal) for removal in gone])
        return
    print_table(("kind", "name", ">size"), ((r.kind, r.name, in_bytes(r.bytes)) for r in gone))
    freed = in_bytes(sum(removal.bytes for removal in gone))
    tell(f"{freed} would be freed." if dry_run else f"{freed} freed.")
