"""Bytes get their name only when they are whole, and never vanish under a reference."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from afina.errors import Internal, TooLarge, Unavailable
from afina.service.platform import Platform
from afina.store import references
from afina.store.blobs import LocalBlobs
from afina.store.references import Holder


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def files_below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_bytes_lie_under_their_hash(blobs: LocalBlobs) -> None:
    staged = blobs.stage([b"ab", b"", b"c"])
    blobs.place(staged)
    digest = hashlib.sha256(b"abc").hexdigest()
    assert (staged.sha256, staged.size_bytes, staged.head) == (digest, 3, b"abc")
    assert blobs.read(digest) == b"abc"
    assert files_below(blobs.root) == [blobs.path(digest)]


def test_blobs_are_for_their_owner_alone(blobs: LocalBlobs) -> None:
    staged = blobs.stage([b"secret"])
    blobs.place(staged)
    assert stat.S_IMODE(blobs.path(staged.sha256).stat().st_mode) == 0o600


def test_the_same_bytes_twice_are_one_blob(blobs: LocalBlobs) -> None:
    for _ in range(2):
        blobs.place(blobs.stage([b"same"]))
    assert len(files_below(blobs.root)) == 1


def test_too_many_bytes_are_refused_early_and_leave_nothing(blobs: LocalBlobs) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge):
        blobs.stage(endless(), max_bytes=10_000)
    assert read == 11
    assert files_below(blobs.root) == []


def test_a_source_that_breaks_off_leaves_nothing(blobs: LocalBlobs) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.stage(broken())
    assert files_below(blobs.root) == []


def test_a_full_disk_is_said_in_plain_words(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="disk"):
        blobs.stage([b"x"])
    monkeypatch.undo()
    assert files_below(blobs.root) == []


def test_a_blob_that_is_missing_is_our_fault_not_the_users(blobs: LocalBlobs) -> None:
    with pytest.raises(Internal, match="missing"):
        blobs.open("a" * 64)


def test_a_blob_goes_when_nobody_refers_to_it(platform: Platform) -> None:
    blobs, database = platform.blobs, platform.database
    holders = [Holder("file", "one"), Holder("file", "two")]
    for holder in holders:
        with database.write() as tx:
            references.admit(tx, blobs, blobs.stage([b"shared"]), holder, 1)
    sha256 = hashlib.sha256(b"shared").hexdigest()
    freed = []
    for holder in holders:
        with database.write() as tx:
            assert references.drop_references(tx, holder) == [sha256]
        freed.append(references.remove_blob(database, blobs, sha256))
    assert freed == [0, 6]
    assert not blobs.path(sha256).exists()


def test_a_transaction_that_fails_leaves_no_reference(platform: Platform) -> None:
    blobs, database = platform.blobs, platform.database
    staged = blobs.stage([b"orphan"])

    def fail() -> None:
        with database.write() as tx:
            references.admit(tx, blobs, staged, Holder("file", "one"), 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as tx:
        assert not references.is_referred_to(tx, staged.sha256)


def test_no_order_of_adding_and_removing_loses_referred_bytes(platform: Platform) -> None:
    """Two threads add and drop the same bytes under names of their own; whenever a reference
    stands, the bytes are there."""
    blobs, database = platform.blobs, platform.database
    lost: list[str] = []
    start = threading.Barrier(3)

    def churn(name: str) -> None:
        start.wait()
        for number in range(15):
            holder = Holder("file", f"{name}-{number}")
            staged = blobs.stage([b"contended"])
            with database.write() as tx:
                references.admit(tx, blobs, staged, holder, 1)
            if not blobs.path(staged.sha256).exists():
                lost.append(holder.id)
            with database.write() as tx:
                references.drop_references(tx, holder)
            references.remove_blob(database, blobs, staged.sha256)

    threads = [threading.Thread(target=churn, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert files_below(blobs.root) == []
