"""The command `afina`: one tree of commands, composed here from one module a noun.

The modules import what they need when a command runs, so that help and completion are quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from afina import __version__
from afina.cli import (
    abuse,
    aliases,
    backup,
    chat,
    cost,
    dashboard,
    data,
    disk,
    doctor,
    export,
    files,
    jobs,
    keys,
    migrate,
    models,
    processes,
    projects,
    usage,
)
from afina.cli.group import AfinaGroup

app = typer.Typer(
    name="afina",
    cls=AfinaGroup,
    help="Tune open models on your own examples, on your own machine, and talk to them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"afina {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Tune open models on your own examples, on your own machine, and talk to them."""


for _name, _command in (
    ("up", processes.up),
    ("api", processes.api),
    ("worker", processes.worker),
    ("engine", processes.engine),
):
    app.command(_name, rich_help_panel="The platform")(_command)
app.command("dashboard", rich_help_panel="The platform")(dashboard.dashboard)
app.command("doctor", rich_help_panel="The platform")(doctor.doctor)
app.command("export", rich_help_panel="The platform")(export.export)
app.command("backup", rich_help_panel="The platform")(backup.backup)
app.command("restore", rich_help_panel="The platform")(backup.restore)
app.add_typer(disk.app, name="disk", rich_help_panel="The platform")
app.command("usage", rich_help_panel="The platform")(usage.usage)
app.command("cost", rich_help_panel="The platform")(cost.cost)
app.command("chat", rich_help_panel="The work")(chat.chat)
for _name, _group in (
    ("data", data.app),
    ("files", files.app),
    ("jobs", jobs.app),
    ("models", models.app),
    ("aliases", aliases.app),
    ("keys", keys.app),
    ("projects", projects.app),
    ("migrate", migrate.app),
    ("watch", abuse.app),
):
    app.add_typer(_group, name=_name, rich_help_panel="The work")


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="afina")
