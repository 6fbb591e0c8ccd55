"""`afina up`, `api`, `worker`, `engine`: the platform's processes, started in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from afina.cli.options import DataOption

HostOption = Annotated[str | None, typer.Option(help="Where to listen [AFINA_HOST, 127.0.0.1].")]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="The port; 0 takes a free one [AFINA_PORT, 8383]."),
]


def up(host: HostOption = None, port: PortOption = None, data: DataOption = None) -> None:
    """Start the whole platform: api, worker and engine, supervised. Ctrl-C stops all of them."""
    from afina.cli.up import run_up
    from afina.settings import Settings

    raise typer.Exit(run_up(Settings.load(data=data, host=host, port=port)))


def api(host: HostOption = None, port: PortOption = None, data: DataOption = None) -> None:
    """Start the HTTP API alone."""
    from afina.cli.serve import run_api
    from afina.settings import Settings

    raise typer.Exit(run_api(Settings.load(data=data, host=host, port=port)))


def worker(data: DataOption = None) -> None:
    """Start the worker alone: it takes jobs and trains."""
    from afina.cli.serve import run_worker
    from afina.settings import Settings

    raise typer.Exit(run_worker(Settings.load(data=data)))


def engine(data: DataOption = None) -> None:
    """Start the engine alone: it answers for base and tuned models."""
    from afina.cli.serve import run_engine
    from afina.settings import Settings

    raise typer.Exit(run_engine(Settings.load(data=data)))
