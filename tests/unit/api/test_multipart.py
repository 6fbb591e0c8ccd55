"""A form means the same however the network cuts it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from afina.api.multipart import FileField, Form, read_form
from afina.errors import InvalidRequest, TooLarge
from afina.store.blobs import LocalBlobs

BODY = (
    b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    b"Content-Type: application/jsonl\r\n\r\n" + b'{"a": "--cut\\r\\n"}\n' * 20 + b"\r\n--cut--\r\n"
)


def read(body: bytes, cut: int, folder: Path, max_bytes: int = 10_000) -> Form:
    """The form of a body that arrives in pieces of `cut` bytes."""
    pieces: Iterator[Message] = iter(
        {
            "type": "http.request",
            "body": body[start : start + cut],
            "more_body": start + cut < len(body),
        }
        for start in range(0, len(body), cut)
    )

    async def receive() -> Message:
        return next(pieces)

    headers = [(b"content-type", b"multipart/form-data; boundary=cut")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    blobs = LocalBlobs(folder)
    field = FileField("file", max_bytes, lambda: blobs.writer(max_bytes))
    return asyncio.run(read_form(request, field))


def content(form: Form) -> bytes:
    assert form.staged is not None
    return form.staged.path.read_bytes()


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 64, 10_000])
def test_a_form_means_the_same_however_it_is_cut(cut: int, tmp_path: Path) -> None:
    form = read(BODY, cut, tmp_path)
    try:
        assert form.pairs == [("purpose", "fine-tune")]
        assert form.filename == "a.jsonl"
        assert content(form) == b'{"a": "--cut\\r\\n"}\n' * 20
    finally:
        form.close()


def test_a_form_that_ends_at_any_byte_is_refused(tmp_path: Path) -> None:
    for end in range(1, len(BODY) - 4, 5):
        with pytest.raises(InvalidRequest, match="could not be read"):
            read(BODY[:end], 50, tmp_path)


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(tmp_path: Path) -> None:
    size = len(b'{"a": "--cut\\r\\n"}\n' * 20)
    read(BODY, 100, tmp_path, size).close()
    with pytest.raises(TooLarge):
        read(BODY, 100, tmp_path, size - 1)


def test_a_form_that_is_closed_or_refused_leaves_no_bytes(tmp_path: Path) -> None:
    big = BODY.replace(b'{"a": "--cut\\r\\n"}\n' * 20, b"x" * 3_000_000)
    form = read(big, 100_000, tmp_path, 4_000_000)
    assert len(content(form)) == 3_000_000
    form.close()
    with pytest.raises(TooLarge):
        read(big, 100_000, tmp_path, 2_000_000)
    assert list((tmp_path / "staging").iterdir()) == []
