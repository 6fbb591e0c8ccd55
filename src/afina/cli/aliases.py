"""`afina aliases`: names of your own for tuned models, with their history and a way back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import at, print_json, print_table, tell

app = typer.Typer(
    help="Give tuned models names of your own, and take them back.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The alias, support-bot say.")]
_ALIASES = "/v1/afina/aliases"


@app.command("set")
def set_alias(
    name: NameArgument,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="The tuned model that it means.")
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(help="A job's suffix: each new model of it takes the name over."),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a name mean a tuned model, or follow the models of a suffix."""
    body: dict[str, object] = {"name": name}
    if model is not None:
        body["target"] = model
    if follow is not None:
        body["follows"] = follow
    with open_client(data, server) as client:
        _tell(client.post(_ALIASES, body), json)


@app.command("list")
def list_aliases(
    server: ServerOption = None, data: DataOption = None, json: JsonOption = False
) -> None:
    """List the names and what they mean now."""
    with open_client(data, server) as client:
        _table(client.get(_ALIASES)["data"], json)


@app.command()
def history(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a name has meant, newest first."""
    from afina.cli.client import segment

    with open_client(data, server) as client:
        _table(client.get(f"{_ALIASES}/{segment(name)}")["data"], json)


@app.command()
def back(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a name mean what it meant before; it follows nothing until it is set again."""
    from afina.cli.client import segment

    with open_client(data, server) as client:
        _tell(client.post(f"{_ALIASES}/{segment(name)}/back"), json)


@app.command()
def remove(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a name mean nothing any more; its history stays."""
    from afina.cli.client import segment

    with open_client(data, server) as client:
        _tell(client.delete(f"{_ALIASES}/{segment(name)}"), json)


def _tell(alias: dict[str, Any], json: bool) -> None:
    if json:
        print_json(alias)
        return
    means = alias["target"] or "nothing yet"
    follows = f", and follows the suffix {alias['follows']}" if alias["follows"] else ""
    tell(f"{alias['name']} means {means}{follows}.")


def _table(found: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(found)
        return
    print_table(
        ("alias", "model", "follows", "because", "since"),
        (
            (a["name"], a["target"] or "–", a["follows"] or "–", a["reason"], at(a["created_at"]))
            for a in found
        ),
    )
