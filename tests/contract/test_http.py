"""What every answer has: its id, its envelope, its headers; and what never leaves the server."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.contract.live import BASE, Live, running, settings_for
from tests.contract.test_bad_inputs import server_process

from afina.api import answers
from afina.serving.testing import Script

FRAMEWORK = "import fastapi, pydantic_settings, sqlalchemy.orm, uvicorn"
READY_STARTS = 5.0
"""Processor time of a start, in starts of the framework alone: 2.5 are usual, and what else the
machine does slows both."""
CANARY = "canary-7391"


def test_every_request_has_an_id_of_its_own_and_the_wires_headers(live: Live) -> None:
    first, second = (live.http.get("/v1/models").headers for _ in range(2))
    assert first["x-request-id"].startswith("req_")
    assert first["x-request-id"] != second["x-request-id"]
    assert first["openai-version"] == "2020-10-01"
    assert first["openai-processing-ms"].isdecimal()
    assert first["openai-organization"].startswith("org-")
    assert first["openai-project"].startswith("proj_")
    assert first["cache-control"] == "no-store"
    assert "server" not in first


def test_the_client_reads_the_id_of_a_request(client: openai.OpenAI) -> None:
    request_id = client.models.retrieve(BASE)._request_id
    assert request_id is not None
    assert request_id.startswith("req_")


@pytest.mark.parametrize("sent", [b"GET /v1/mod\x01els HTTP/1.1\r\n\r\n", b"\x16\x03\x01 hello"])
def test_what_is_no_http_is_refused_in_the_envelope(live: Live, sent: bytes) -> None:
    host, _, port = live.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(sent)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_head_and_options_are_refused_in_the_envelope(live: Live) -> None:
    answer = live.http.request("OPTIONS", "/v1/files")
    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "POST" in answer.headers["allow"]


def test_a_compressed_body_is_refused_in_words(live: Live) -> None:
    body = gzip.compress(b'{"model": "x"}')
    for path, kind in (
        ("/v1/chat/completions", "application/json"),
        ("/v1/files", "multipart/form-data; boundary=x"),
    ):
        headers = {"content-encoding": "gzip", "content-type": kind}
        answer = live.http.post(path, content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_content_encoding"
    headers = {"content-encoding": "identity"}
    plain = live.http.post("/v1/moderations", json={"input": "a"}, headers=headers)
    assert plain.status_code == 200


def test_health_is_200_when_all_parts_answer_and_needs_no_key(live: Live) -> None:
    answer = httpx2.get(f"{live.url}/health", trust_env=False)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "parts": {"database": "ok", "engine": "ok"}}


def test_health_names_the_part_that_does_not_answer(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with running(settings) as live:
        live.engine.draining = True
        answer = live.http.get("/health")
        assert answer.status_code == 503
        assert answer.json()["parts"] == {"database": "ok", "engine": "is draining."}
        assert "engine" in answer.json()["error"]["message"]
        settings.engine_socket.unlink()
        answer = live.http.get("/health")
        assert answer.json()["parts"]["engine"].startswith("The engine")
        body = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
        refused = live.http.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503
        assert refused.headers["x-should-retry"] == "true"


def test_the_page_of_the_api_needs_nothing_from_outside(live: Live) -> None:
    page = httpx2.get(f"{live.url}/docs", trust_env=False)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"https?://", page.text)
    assert "<script" not in page.text
    for path in ("/v1/fine_tuning/jobs/{job_id}/cancel", "/v1/chat/completions", "/v1/afina/usage"):
        assert path in page.text


def test_the_document_names_every_operation_and_its_references_lead_somewhere(live: Live) -> None:
    document = httpx2.get(f"{live.url}/openapi.json", trust_env=False).json()
    operations = {
        (method.upper(), path) for path, found in document["paths"].items() for method in found
    }
    assert {
        ("POST", "/v1/files"),
        ("GET", "/v1/files/{file_id}/content"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("GET", "/v1/fine_tuning/jobs/{job_id}/checkpoints"),
        ("DELETE", "/v1/models/{model}"),
        ("POST", "/v1/chat/completions"),
    } <= operations
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.rsplit("/", 1)[-1] in schemas, reference
    job = document["paths"]["/v1/fine_tuning/jobs"]["post"]["requestBody"]["content"]
    assert job["application/json"]["schema"] == {"$ref": "#/components/schemas/JobCreate"}
    limits = document["paths"]["/v1/files"]["get"]["parameters"]
    assert {"purpose", "limit", "order", "after"} == {p["name"] for p in limits}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield str(item)
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_a_fault_is_a_500_that_tells_its_id_and_nothing_else(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError(f"{CANARY} in an exception")

    monkeypatch.setattr("afina.api.routes.files.files.get_file", broken)
    answer = live.http.get("/v1/files/file-a")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert answer.headers["x-request-id"] in error["message"]
    assert error["type"] == "server_error"
    told = capsys.readouterr()
    assert CANARY not in answer.text + told.out + told.err
    assert "RuntimeError" in told.out + told.err


def test_a_fault_while_streaming_is_an_error_event(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("afina.service.chat.Chunks.totals", broken)
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    text = live.http.post("/v1/chat/completions", json=body).text
    last = json.loads(text.rstrip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert CANARY not in text


def test_no_text_of_a_user_and_no_secret_gets_into_the_log(tmp_path: Path) -> None:
    settings_for(tmp_path)
    log = tmp_path / "log.txt"
    with log.open("wb") as err, server_process(tmp_path, stderr=err, level="debug") as (_, url):
        httpx2.get(f"{url}/health", trust_env=False, timeout=60)
        key = (tmp_path / "api-key").read_text().strip()
        http = httpx2.Client(
            base_url=url, trust_env=False, headers={"authorization": f"Bearer {key}"}, timeout=30
        )
        body = {"model": BASE, "messages": [{"role": "user", "content": CANARY}], CANARY: 1}
        assert http.post("/v1/chat/completions", json=body).status_code == 400
        row = json.dumps({"messages": [{"role": "user", "content": CANARY}]}).encode()
        form: Any = {"file": ("a.jsonl", row), "purpose": (None, "fine-tune")}
        assert http.post("/v1/files", files=form).status_code == 200
        http.get(f"/v1/files?after={CANARY}")
        http.get(f"/v1/models/{key}")
        http.close()
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert sum(line["event"] == "request" for line in lines) >= 4
    assert CANARY not in text
    assert key not in text


def test_the_api_is_ready_soon_small_and_without_torch(tmp_path: Path) -> None:
    settings_for(tmp_path)
    with server_process(tmp_path) as (process, url):
        httpx2.get(f"{url}/health", trust_env=False, timeout=60)
        spent = process.cpu_times()
        assert spent.user + spent.system < READY_STARTS * _processor_seconds(FRAMEWORK)
        assert process.memory_info().rss < 200 * 1024 * 1024
        loaded = {Path(m.path).name for m in process.memory_maps()}
        assert not any(name.startswith("libtorch") for name in loaded)


def _processor_seconds(program: str) -> float:
    """What Python takes for a program of its own."""
    timed = f"{program}\nimport time\nprint(time.process_time())"
    said = subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True)
    return float(said.stdout)


def test_a_server_that_stops_ends_its_streams_with_an_error(tmp_path: Path) -> None:
    hold = threading.Event()
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with running(settings_for(tmp_path)) as live:
        live.engine.script = Script(hold=hold)
        with live.http.stream("POST", "/v1/chat/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()
            assert "Well" not in next(lines)
            live.stop()
            rest = [line for line in lines if line]
        hold.set()
    assert "data: [DONE]" not in rest
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["type"] == "server_error"


def test_a_hundred_idle_connections_do_not_keep_others_waiting(live: Live) -> None:
    port = int(live.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for connection in idle:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 100\r\n")
        started = time.monotonic()
        assert live.http.get("/v1/models").status_code == 200
        assert time.monotonic() - started < 2
    finally:
        for connection in idle:
            connection.close()


def test_a_broken_upload_leaves_nothing_behind(live: Live) -> None:
    port = int(live.url.rpartition(":")[2])
    before = live.http.get("/v1/files").json()["data"]
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {live.key}\r\n"
        "content-type: multipart/form-data; boundary=cut\r\ncontent-length: 4000000\r\n\r\n"
        '--cut\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + b"{}\n" * 700_000)
    assert live.http.get("/v1/files").json()["data"] == before
    uploads = live.settings.data / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []
    assert not any(p.is_file() for p in (live.settings.blobs).rglob("*.part"))


def test_the_lists_envelope_has_the_ids_of_its_ends_or_null() -> None:
    empty = answers.listing([], has_more=False, ids=True)
    assert (empty["first_id"], empty["last_id"]) == (None, None)
    some = answers.listing([{"id": "a"}, {"id": "b"}], has_more=True, ids=True)
    assert (some["first_id"], some["last_id"]) == ("a", "b")
    assert "first_id" not in answers.listing([], has_more=False, ids=False)
