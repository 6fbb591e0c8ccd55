"""Options that many commands share, and what they lead to: settings, a client.

Heavy imports wait until a command runs, so that help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from afina.cli.client import Client
    from afina.settings import Settings

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data directory [AFINA_DATA, ~/.afina]."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server [AFINA_BASE_URL, else the one that runs on the data directory].",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def load_settings(data: Path | None = None, server: str | None = None) -> Settings:
    """The settings, with what the command line gave on top."""
    from afina.settings import Settings

    return Settings.load(data=data, base_url=server)


def open_client(data: Path | None = None, server: str | None = None) -> Client:
    """A client for the server that the options and settings name, with the commands' key."""
    from afina.cli.client import Client

    settings = load_settings(data, server)
    return Client(server_of(settings), settings.key_for_commands())


def server_of(settings: Settings) -> str:
    """The server's address: the one named, else where `afina up` listens on this data directory,
    else the host and port of the settings."""
    import json

    if settings.base_url is None:
        try:
            url = json.loads((settings.data / "server.json").read_text())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return settings.server_url
        if isinstance(url, str):
            return url
    return settings.server_url
