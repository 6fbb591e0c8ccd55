"""Uploads in parts, by the official client: any order, any repetition, one file in the end."""

from __future__ import annotations

import hashlib
import io
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Upload
from openai.types.uploads import UploadPart
from tests.contract.live import Live, running, settings_for

from afina.api import body

ROW = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}\n'
CONTENT = b"".join(ROW.replace(b"q", str(n).encode()) for n in range(200))


def opened(client: openai.OpenAI, size: int = len(CONTENT), **more: Any) -> Upload:
    return client.uploads.create(
        bytes=size, filename="big.jsonl", mime_type="text/jsonl", purpose="fine-tune", **more
    )


def staged(live: Live) -> list[Path]:
    return [path for path, _ in live.platform.blobs.staged_files()]


def blobs(live: Live) -> set[str]:
    return {sha256 for sha256, _ in live.platform.blobs.stored()}


def test_the_clients_own_upload_in_chunks_makes_the_file(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(CONTENT)
    done = client.uploads.upload_file_chunked(
        file=path,
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=5000,
        md5=hashlib.md5(CONTENT).hexdigest(),
    )
    assert Upload.model_validate(done.model_dump()).status == "completed"
    assert done.file is not None
    assert client.files.wait_for_processing(done.file.id).status == "processed"
    assert client.files.content(done.file.id).read() == CONTENT
    assert (done.file.filename, done.file.bytes) == ("train.jsonl", len(CONTENT))


def test_parts_come_in_parallel_out_of_order_and_repeated(
    live: Live, client: openai.OpenAI
) -> None:
    before = blobs(live)
    upload = opened(client, expires_after={"anchor": "created_at", "seconds": 3600})
    pieces = [CONTENT[i : i + 999] for i in range(0, len(CONTENT), 999)]
    order = [*range(len(pieces)), 0, 3, 3]
    random.Random(3).shuffle(order)

    def send(number: int) -> tuple[int, UploadPart]:
        part = client.uploads.parts.create(upload.id, data=io.BytesIO(pieces[number]))
        return number, UploadPart.model_validate(part.model_dump())

    with ThreadPoolExecutor(6) as pool:
        parts = dict(pool.map(send, order))
    ids = [parts[number].id for number in range(len(pieces))]
    done = client.uploads.complete(upload.id, part_ids=ids)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == CONTENT
    assert done.file.expires_at == done.file.created_at + 3600
    assert blobs(live) - before <= {hashlib.sha256(CONTENT).hexdigest()}, "parts are gone"
    assert staged(live) == []


def test_what_does_not_fit_is_refused_and_the_upload_stays_open(
    live: Live, client: openai.OpenAI
) -> None:
    upload = opened(client)
    one = client.uploads.parts.create(upload.id, data=CONTENT[:100])
    two = client.uploads.parts.create(upload.id, data=CONTENT[100:])
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("md5", {"part_ids": [one.id, two.id], "md5": "0" * 32}),
        ("part_ids", {"part_ids": [one.id]}),
        ("part_ids", {"part_ids": [one.id, two.id, two.id]}),
        ("part_ids[1]", {"part_ids": [one.id, "part_unknown"]}),
        ("file", {"part_ids": [two.id, one.id]}),
        ("md5", {"part_ids": [one.id, two.id], "md5": "no checksum"}),
    ]
    for param, asked in refusals:
        with pytest.raises(openai.BadRequestError) as refused:
            client.uploads.complete(upload.id, **asked)
        assert refused.value.param == param
    assert client.uploads.complete(upload.id, part_ids=[one.id, two.id]).status == "completed"
    with pytest.raises(openai.BadRequestError, match="completed as the file file-"):
        client.uploads.complete(upload.id, part_ids=[one.id, two.id])
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.parts.create(upload.id, data=b"more")


def test_a_cancelled_upload_leaves_no_bytes_and_takes_none(
    live: Live, client: openai.OpenAI
) -> None:
    before = blobs(live)
    upload = opened(client)
    client.uploads.parts.create(upload.id, data=b"some bytes that nobody wants")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert blobs(live) == before
    for act in (
        lambda: client.uploads.parts.create(upload.id, data=b"more"),
        lambda: client.uploads.complete(upload.id, part_ids=["part_a"]),
    ):
        with pytest.raises(openai.BadRequestError, match="is cancelled"):
            act()
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_unknown")


def test_limits_and_purposes_are_refused_by_name(live: Live, client: openai.OpenAI) -> None:
    for param, changes in (
        ("bytes", {"bytes": 9 * 1024**3}),
        ("bytes", {"bytes": 0}),
        ("purpose", {"purpose": "vision"}),
        ("filename", {"filename": ""}),
        ("mime_type", {"mime_type": ""}),
        ("expires_after.seconds", {"expires_after": {"anchor": "created_at", "seconds": 5}}),
    ):
        asked = {
            "bytes": 10, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune",
        }  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            client.uploads.create(**(asked | changes))  # type: ignore[arg-type]
        assert refused.value.param == param
    upload = opened(client)
    with pytest.raises(openai.BadRequestError) as refused:
        client.uploads.parts.create(upload.id, data=b"")
    assert refused.value.param == "data"


def test_a_retry_makes_no_second_part_and_no_second_file(live: Live) -> None:
    again = {"x-stainless-retry-count": "1"}
    file: Any = {"file": ("once.jsonl", ROW * 3), "purpose": (None, "fine-tune")}
    first = live.http.post("/v1/files", files=file).json()["id"]
    assert live.http.post("/v1/files", files=file, headers=again).json()["id"] == first
    assert live.http.post("/v1/files", files=file).json()["id"] != first
    live.http.delete(f"/v1/files/{first}")
    other: Any = {"file": ("other.jsonl", ROW * 3), "purpose": (None, "fine-tune")}
    assert live.http.post("/v1/files", files=other, headers=again).json()["id"] != first
    wanted = {
        "bytes": 4, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "user_data",
    }  # fmt: skip
    upload = live.http.post("/v1/uploads", json=wanted).json()["id"]
    assert live.http.post("/v1/uploads", json=wanted, headers=again).json()["id"] == upload
    path = f"/v1/uploads/{upload}/parts"
    part = live.http.post(path, files={"data": ("upload", b"four")}).json()["id"]
    same = live.http.post(path, files={"data": ("upload", b"four")}, headers=again)
    assert same.json()["id"] == part
    body_ = {"part_ids": [part]}
    done = live.http.post(f"/v1/uploads/{upload}/complete", json=body_).json()
    answers = live.http.post(f"/v1/uploads/{upload}/complete", json=body_, headers=again)
    assert answers.json() == done


def head(live: Live, path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {live.key}\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    ).encode()


def test_a_body_that_stops_coming_is_given_up(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    port = int(live.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(head(live, "/v1/files", 1000) + b"{")
        answer = link.recv(65536)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert staged(live) == []


def test_a_link_that_breaks_leaves_nothing_behind(live: Live) -> None:
    port = int(live.url.rpartition(":")[2])
    for sent in (1, 65_536, 700_000):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
            link.sendall(head(live, "/v1/files", 10_000_000) + b"x" * sent)
    before = len(live.http.get("/v1/files").json()["data"])
    assert live.http.get("/health").status_code == 200
    for _ in range(100):
        if not staged(live):
            break
        live.http.get("/health")
    assert staged(live) == []
    assert len(live.http.get("/v1/files").json()["data"]) == before


def test_a_spent_disk_budget_is_told_to_the_client_and_not_retried(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, disk={"max_bytes": 10_000_000, "min_free_bytes": 0})
    (tmp_path / "large").write_bytes(b"x" * 10_000_000)
    with running(settings) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=2)
        with client, pytest.raises(openai.InternalServerError, match="afina disk clean") as caught:
            client.files.create(file=("a.jsonl", b"{}\n" * 10), purpose="fine-tune")
        assert caught.value.status_code == 507
        assert caught.value.code == "disk_budget_spent"
        assert caught.value.response.headers["x-should-retry"] == "false"
