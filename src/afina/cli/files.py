"""`afina files`: upload, list, look at, download and delete files on the server."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from afina.cli.options import (
    DataOption,
    JsonOption,
    ServerOption,
    YesOption,
    open_client,
)
from afina.cli.terminal import agreed, at, in_bytes, print_facts, print_json, print_table, tell

app = typer.Typer(help="Upload, list, download and delete files.", no_args_is_help=True)

FileArgument = Annotated[str, typer.Argument(metavar="FILE_ID", help="A file's id, `file-…`.")]


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file.")],
    purpose: Annotated[
        str, typer.Option(help="What it is for: fine-tune or user_data.")
    ] = "fine-tune",
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Upload a file and print its id."""
    with open_client(data, server) as client:
        stored = client.upload(path, purpose)
    if json:
        print_json(stored)
        return
    print(stored["id"])
    tell(f"{path.name}: {in_bytes(stored['bytes'])}, {stored['status']}.")


@app.command("list")
def list_files(
    purpose: Annotated[str | None, typer.Option(help="Only files of this purpose.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the project's files, newest first."""
    with open_client(data, server) as client:
        found = list(client.every("/v1/files", limit=1000, purpose=purpose))
    if json:
        print_json(found)
        return
    print_table(
        ("id", "name", "purpose", ">size", "status", "created"),
        (
            (
                file["id"],
                file["filename"],
                file["purpose"],
                in_bytes(file["bytes"]),
                file["status"],
                at(file["created_at"]),
            )
            for file in found
        ),
    )


@app.command()
def get(
    file_id: FileArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show one file."""
    with open_client(data, server) as client:
        file = client.get(f"/v1/files/{file_id}")
    if json:
        print_json(file)
        return
    print_facts(
        {
            "id": file["id"],
            "name": file["filename"],
            "purpose": file["purpose"],
            "size": in_bytes(file["bytes"]),
            "status": file["status"],
            "created": at(file["created_at"]),
            "expires": at(file.get("expires_at")),
        }
    )


@app.command()
def download(
    file_id: FileArgument,
    to: Annotated[
        Path | None, typer.Option(help="Write here; without it, to standard output.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Download a file's bytes; the metrics of a job come out as plain CSV."""
    with open_client(data, server) as client:
        file = client.get(f"/v1/files/{file_id}")
        content = decoded(file, client.download(f"/v1/files/{file_id}/content"))
    if to is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    to.write_bytes(content)
    if json:
        print_json({"id": file_id, "path": str(to), "bytes": len(content)})
    else:
        tell(f"{to}: {in_bytes(len(content))}.")


@app.command()
def delete(
    file_id: FileArgument,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a file and its bytes."""
    if not agreed(f"Delete {file_id} for good?", yes):
        raise typer.Exit(1)
    with open_client(data, server) as client:
        gone = client.delete(f"/v1/files/{file_id}")
    if json:
        print_json(gone)
    else:
        tell(f"{file_id} is deleted.")


def decoded(file: dict[str, Any], content: bytes) -> bytes:
    """The wire API carries a job's results as base64 of a CSV; people want the CSV."""
    if file["purpose"] != "fine-tune-results":
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content
