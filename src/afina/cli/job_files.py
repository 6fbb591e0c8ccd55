"""The files of a job that is being created: an id is taken as it is, a path is uploaded first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from afina.cli.terminal import tell
from afina.errors import AfinaError, Internal, Unavailable

if TYPE_CHECKING:
    from afina.cli.client import Client


@contextmanager
def bringing(client: Client) -> Iterator[Callable[[str], str]]:
    """Gives the id of a file or path. Where the server then refuses the job, what was uploaded for
    it is deleted again, so that trying anew leaves no copies."""
    uploaded: dict[str, str] = {}

    def file_id(given: str) -> str:
        path = Path(given)
        if given.startswith("file-") and not path.exists():
            return given
        if not path.is_file():
            raise typer.BadParameter(
                f"{given} is neither a file on this machine nor the id of an uploaded one"
            )
        stored = client.upload(path, "fine-tune")
        tell(f"{path.name} is uploaded as {stored['id']}.")
        uploaded[str(stored["id"])] = path.name
        return str(stored["id"])

    try:
        yield file_id
    except (Unavailable, Internal):  # the job may have been created
        raise
    except (AfinaError, typer.BadParameter):
        for id_, name in uploaded.items():
            try:
                client.delete(f"/v1/files/{id_}")
            except AfinaError:
                continue  # a key that may not; the refusal of the job is what counts
            tell(f"No job was created, and {name} is deleted from the server again.")
        raise
