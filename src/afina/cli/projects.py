"""`afina projects`: projects of the organization, what they may spend, and keys for them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, YesOption, open_client
from afina.cli.terminal import agreed, at, print_json, print_table, tell

app = typer.Typer(
    help="Divide the machine among teams: projects, their keys and what they may spend.",
    no_args_is_help=True,
)

_PROJECTS = "/v1/organization/projects"
ProjectId = Annotated[str, typer.Argument(metavar="PROJECT_ID", help="A project's id, `proj_…`.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the project is called.")],
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make a project, whose files, jobs and models no other project sees."""
    with open_client(data, server) as client:
        made = client.post(_PROJECTS, {"name": name})
    if json:
        print_json(made)
        return
    print(made["id"])
    tell(f"Make a key for it with `afina projects key {made['id']} NAME`.")


@app.command("list")
def list_projects(
    archived: Annotated[bool, typer.Option("--archived", help="Those too.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the organization's projects."""
    with open_client(data, server) as client:
        found = client.get(_PROJECTS, limit=100, include_archived=archived)["data"]
    if json:
        print_json(found)
        return
    rows = ((p["id"], p["name"], p["status"], at(p["created_at"])) for p in found)
    print_table(("id", "name", "status", "created"), rows)


@app.command()
def key(
    project_id: ProjectId,
    name: Annotated[str, typer.Argument(help="The service account that the key belongs to.")],
    days: Annotated[
        int | None, typer.Option(min=1, help="Days until it expires; never where not given.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make a service account of the project and print its key, which is never shown again."""
    body: dict[str, object] = {"name": name}
    if days is not None:
        body["expires_in_seconds"] = days * 86_400
    with open_client(data, server) as client:
        made = client.post(f"{_PROJECTS}/{project_id}/service_accounts", body)
    if json:
        print_json(made)
        return
    print(made["api_key"]["value"])
    tell(f"{made['api_key']['id']} of {made['id']} ({name}). Keep the key: it is shown this once.")


@app.command()
def limit(
    project_id: ProjectId,
    dollars: Annotated[str, typer.Argument(help="Dollars a month, or `none` to lift the limit.")],
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Limit what the project may spend in a month; answers and jobs beyond it are refused."""
    path = f"{_PROJECTS}/{project_id}/spend_limit"
    with open_client(data, server) as client:
        if dollars == "none":
            answer = client.delete(path)
        else:
            body = {"currency": "USD", "interval": "month", "threshold_amount": _cents(dollars)}
            answer = client.post(path, body)
    if json:
        print_json(answer)
    elif dollars == "none":
        tell("There is no limit any more.")
    else:
        tell(f"{project_id} may spend ${Decimal(dollars):,.2f} a month.")


@app.command()
def archive(
    project_id: ProjectId,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Archive a project: its keys open nothing any more; what it owns stays."""
    if not agreed(f"Archive {project_id}?", yes):
        raise typer.Exit(1)
    with open_client(data, server) as client:
        answer = client.post(f"{_PROJECTS}/{project_id}/archive", None)
    if json:
        print_json(answer)
    else:
        tell(f"{project_id} is archived.")


def _cents(dollars: str) -> int:
    try:
        cents = Decimal(dollars) * 100
    except InvalidOperation:
        cents = Decimal(-1)
    if cents < 0 or cents != cents.to_integral_value():
        raise typer.BadParameter(f"{dollars} is no amount such as 250 or 9.50")
    return int(cents)
