"""`afina export`: all that the project owns, in a folder that needs no afina to be read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import in_bytes, in_count, print_facts, print_json
from afina.errors import InvalidRequest, Unavailable

_PATH = "/v1/afina/export"


def export(
    to: Annotated[
        Path, typer.Option("--to", help="A new or empty folder, or a file that ends with .tar.")
    ],
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Hand over everything that the project owns: files, jobs, events, models, the ledger."""
    with open_client(data, server) as client:
        if to.suffix == ".tar":
            client.save(_PATH, to)
            count, size = 1, to.stat().st_size
        else:
            to.mkdir(parents=True, exist_ok=True)
            if any(to.iterdir()):
                raise InvalidRequest(f"The folder {to} is not empty.", remedy="Name a new one.")
            with client.stream("GET", _PATH) as response:
                count, size = unpack(response.iter_bytes(), to)
    if json:
        print_json({"path": str(to), "files": count, "bytes": size})
        return
    print_facts({"written": str(to), "files": in_count(count), "size": in_bytes(size)})


def unpack(pieces: Iterator[bytes], target: Path) -> tuple[int, int]:
    """Unpack a stream that is a tar file into `target`; returns the files and bytes written."""
    count = size = 0
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Stream(pieces)), mode="r|") as tar:
            for member in tar:
                # "data" refuses links, devices, and names that lead out of the target.
                tar.extract(member, target, filter="data")
                if member.isfile():
                    count += 1
                    size += member.size
    except tarfile.TarError as error:
        raise Unavailable(
            f"The export broke off ({error}).", remedy="Remove the folder and try again."
        ) from None
    return count, size


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
