"""Files: upload, read, list, download and delete. The uploaded bytes are never changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from afina.domain.accounts import Caller
from afina.domain.files import StoredFile
from afina.domain.pages import Page
from afina.service.platform import Platform


@dataclass(frozen=True)
class FileQuery:
    """Which files a list shows."""

    purpose: str | None = None
    limit: int = 10_000
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def upload_file(
    platform: Platform,
    caller: Caller,
    source: Iterable[bytes],
    filename: str,
    purpose: str,
    expires_after_s: int | None = None,
) -> StoredFile:
    """Stores bytes as a file of the caller's project. Raises InvalidRequest, TooLarge."""
    raise NotImplementedError


def get_file(platform: Platform, caller: Caller, file_id: str) -> StoredFile:
    """Raises NotFound."""
    raise NotImplementedError


def list_files(
    platform: Platform, caller: Caller, query: FileQuery = FileQuery()
) -> Page[StoredFile]:
    """A page of the project's files."""
    raise NotImplementedError


def delete_file(platform: Platform, caller: Caller, file_id: str) -> None:
    """Deletes the file, and its bytes unless something else holds the same ones. Raises NotFound,
    or Conflict while a job that is not over uses it."""
    raise NotImplementedError


def open_file(platform: Platform, caller: Caller, file_id: str) -> tuple[StoredFile, BinaryIO]:
    """The file and an open handle on its bytes, which the caller closes. Raises NotFound."""
    raise NotImplementedError
