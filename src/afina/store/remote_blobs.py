"""Blobs in an S3 bucket, with the local folder as what is at hand: for several machines on one
database.

A blob goes to the bucket when it is complete, before any row can refer to it, and is fetched to the
local folder when it is first asked for. What a crash leaves in the bucket is found by `stored`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afina.errors import BadSettings, Internal, Unavailable
from afina.outside_settings import S3Settings
from afina.settings import Settings
from afina.store.blobs import CHUNK_BYTES, BlobWriter, LocalBlobs, StagedBlob

if TYPE_CHECKING:
    from obstore.store import S3Store


def open_blobs(settings: Settings) -> LocalBlobs:
    """The blob store that the settings name. Raises BadSettings."""
    if settings.s3 is None:
        return LocalBlobs(settings.blobs)
    return RemoteBlobs(settings.blobs, _store(settings.s3))


class RemoteBlobs(LocalBlobs):
    """The blob store in a bucket; `root` keeps what this machine has used."""

    def __init__(self, root: Path, store: S3Store) -> None:
        super().__init__(root)
        self._store = store

    def writer(self, max_bytes: int | None = None) -> BlobWriter:
        """As the local store's; `finish` sends the bytes to the bucket too."""
        file, path = self._staged_file()
        return _RemoteWriter(self, file, path, max_bytes)

    def send(self, sha256: str, path: Path) -> None:
        """Puts the file at `path` into the bucket as that blob."""
        with _plain_words(), path.open("rb") as file:
            self._store.put(_key(sha256), file)

    def place(self, staged: StagedBlob) -> None:
        """Gives the bytes their name. They are sent again if another deletion took them from the
        bucket since they were staged."""
        if not self._is_sent(staged.sha256):
            self.send(staged.sha256, staged.path)
        super().place(staged)

    def unlink(self, sha256: str) -> None:
        """Removes the blob here and in the bucket."""
        with _plain_words():
            self._store.delete(_key(sha256))
        super().unlink(sha256)

    def path(self, sha256: str) -> Path:
        """Where the blob lies, fetched from the bucket if it is not here yet. Where the bucket has
        it not either, the place where it would lie."""
        home = super().path(sha256)
        if not home.exists():
            self._fetch(sha256)
        return home

    def stored(self) -> Iterator[tuple[str, float]]:
        """The sha256 and time of every blob in the bucket."""
        with _plain_words():
            for page in self._store.list("sha256/"):
                for found in page:
                    yield found["path"].removeprefix("sha256/"), found["last_modified"].timestamp()

    def _is_sent(self, sha256: str) -> bool:
        try:
            with _plain_words():
                self._store.head(_key(sha256))
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, sha256: str) -> None:
        writer = super().writer()
        try:
            with _plain_words():
                for piece in self._store.get(_key(sha256)).stream(min_chunk_size=CHUNK_BYTES):
                    writer.write(bytes(piece))
            staged = writer.finish()
        except FileNotFoundError:
            writer.discard()
            return
        except BaseException:
            writer.discard()
            raise
        if staged.sha256 != sha256:
            self.discard(staged)
            raise Internal(f"The stored bytes {sha256[:12]}… came damaged from the bucket.")
        super().place(staged)


class _RemoteWriter(BlobWriter):
    def __init__(
        self, blobs: RemoteBlobs, file: io.RawIOBase, path: Path, max_bytes: int | None
    ) -> None:
        super().__init__(file, path, max_bytes)
        self._blobs = blobs

    def finish(self) -> StagedBlob:
        staged = super().finish()
        try:
            self._blobs.send(staged.sha256, staged.path)
        except BaseException:
            staged.path.unlink(missing_ok=True)
            raise
        return staged


def _key(sha256: str) -> str:
    # Flat, so that a listing needs no folders: buckets do not mind.
    return f"sha256/{sha256}"


def _store(given: S3Settings) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError:
        raise BadSettings(
            "Blobs are to live in S3, and its client is not installed.",
            param="s3",
            remedy="Install it with `pip install afina[s3]`.",
        ) from None
    options: dict[str, Any] = {
        "endpoint": given.endpoint,
        "region": given.region,
        "access_key_id": given.access_key_id,
        "secret_access_key": given.secret_access_key,
        "virtual_hosted_style_request": False if given.endpoint else None,
    }
    plain = given.endpoint is not None and given.endpoint.startswith("http://")
    return S3Store(
        given.bucket,
        prefix=given.prefix or None,
        client_options={"allow_http": plain},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
        **{name: value for name, value in options.items() if value is not None},
    )


@contextmanager
def _plain_words() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise
    except BaseError as error:
        raise Unavailable(
            "The bucket of stored files cannot be reached or refused.",
            retry_after_s=2.0,
            remedy="Try again in a moment; the server's log has the kind of error.",
        ) from error
