"""`afina watch`: what the abuse watch counted, and letting a stopped key ask again."""

from __future__ import annotations

from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import at, print_json, print_table, tell

app = typer.Typer(
    help="See which keys ask for what moderation flags, and let a stopped key ask again.",
    no_args_is_help=True,
)
_WATCH = "/v1/afina/watch"


@app.command()
def show(
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show how much of each key's questions and answers was flagged, and what was done about it."""
    with open_client(data, server) as client:
        found = client.get(_WATCH)["data"]
    if json:
        print_json(found)
        return
    print_table(
        ("key", "model", "looked at", "flagged", "unseen", "masked", "mostly", "state", "since"),
        (
            (
                one["key_id"] or "(dashboard)",
                one["model"],
                str(one["looked_at"]),
                str(one["flagged"]),
                str(one["unseen"]),
                str(one["masked"]),
                ", ".join(list(one["categories"])[:2]),
                one["state"] or "",
                at(one["since"]),
            )
            for one in found
        ),
    )


@app.command()
def release(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="A key's id, `key_…`.")],
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a key that the watch has stopped ask again; the audit log says who did."""
    from afina.cli.client import segment

    with open_client(data, server) as client:
        found = client.post(f"{_WATCH}/{segment(key_id)}/release")
    if json:
        print_json(found)
    else:
        tell(f"{key_id} may ask again.")
