"""Taking a tuned model away from a server: its files checked by hash, merged here if asked."""

from __future__ import annotations

import enum
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from afina.errors import Internal, InvalidRequest

if TYPE_CHECKING:
    from afina.cli.client import Client
    from afina.settings import Settings


class Format(enum.StrEnum):
    """What `models export` writes."""

    PEFT = "peft"
    MERGED = "merged"


def export_peft(client: Client, name: str, target: Path) -> list[str]:
    """Write the adapter's files into `target`; returns their names. Raises InvalidRequest for a
    base and for a folder that is not empty."""
    _, files = _tune(client, name)
    _make_empty(target)
    return _fetch(client, name, files, target)


def export_merged(client: Client, name: str, target: Path, settings: Settings) -> list[str]:
    """Write base and adapter as one model into `target`; the base must be on this machine."""
    from afina.cli.bases import find_base

    base_id, files = _tune(client, name)
    base = find_base(settings, base_id)
    _make_empty(target)
    from afina.model.merge import merge

    with tempfile.TemporaryDirectory(prefix="afina-") as room:
        adapter = Path(room)
        _fetch(client, name, files, adapter)
        merge(Path(base.path), adapter, target)
    return sorted(path.name for path in target.iterdir())


def _tune(client: Client, name: str) -> tuple[str, dict[str, str]]:
    from afina.cli.client import segment

    model = client.get(f"/v1/afina/models/{segment(name)}")
    if model.get("kind") != "tuned":
        raise InvalidRequest(
            f"{name} is a base model; there is nothing tuned to export.",
            remedy="Name a tuned model: `afina models list`.",
        )
    return str(model["base_id"]), dict(model["files"])


def _make_empty(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise InvalidRequest(f"The folder {target} is not empty.", remedy="Name a new one.")


def _fetch(client: Client, name: str, files: dict[str, str], target: Path) -> list[str]:
    from urllib.parse import quote

    from afina.cli.client import segment

    for file, sha256 in sorted(files.items()):
        # A name is one part of a path and nothing else, whatever the server says.
        if Path(file).name != file:
            raise Internal(f"The server named a file {file!r}, which is no plain name.")
        path = target / file
        client.save(f"/v1/afina/files-of/{segment(name)}?file={quote(file)}", path)
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if found != sha256:
            path.unlink()
            raise Internal(f"{file} was damaged on its way (its sha256 differs). Try again.")
    return sorted(files)
