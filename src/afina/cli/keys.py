"""`afina keys`: API keys of the project. A key's secret is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, YesOption, open_client
from afina.cli.terminal import agreed, at, print_json, print_table, tell

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_KEYS = "/v1/afina/keys"
_ADMIN_KEYS = "/v1/organization/admin_api_keys"
_DAY_S = 86_400


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    days: Annotated[
        int | None, typer.Option(min=1, help="Days until it expires; never where not given.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do, such as api.all.read or api.model.request; repeatable."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="A key that manages the organization instead.")
    ] = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and print its secret, which is never shown again."""
    if admin and scope:
        raise typer.BadParameter("an admin key has no scopes: leave out --scope or --admin")
    body: dict[str, object] = {"name": name}
    if days is not None:
        body["expires_in_seconds" if admin else "expires_after_s"] = days * _DAY_S
    if scope:
        body["scopes"] = scope
    with open_client(data, server) as client:
        key = client.post(_ADMIN_KEYS if admin else _KEYS, body)
    if json:
        print_json(key)
        return
    print(key["value" if admin else "secret"])
    tell(f"{key['id']} ({name}). Keep the secret: it is not shown again.")


@app.command("list")
def list_keys(
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the project's keys, revoked ones too."""
    with open_client(data, server) as client:
        found = client.get(_KEYS)["data"]
    if json:
        print_json(found)
        return
    print_table(
        ("id", "name", "key", "created", "last used", "expires", "revoked"),
        (
            (
                key["id"],
                key["name"],
                key["redacted"],
                at(key["created_at"]),
                at(key["last_used_at"]),
                at(key["expires_at"]),
                at(key["revoked_at"]),
            )
            for key in found
        ),
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="A key's id, `key_…`.")],
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke a key: from now on it opens nothing."""
    if not agreed(f"Revoke {key_id}?", yes):
        raise typer.Exit(1)
    with open_client(data, server) as client:
        key = client.delete(f"{_KEYS}/{key_id}")
    if json:
        print_json(key)
    else:
        tell(f"{key_id} is revoked.")
