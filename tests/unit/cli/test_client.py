"""The commands' client: refusals become errors, lists are read to their end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.cli.conftest import ScriptedServer

from afina.cli.client import Client, segment
from afina.cli.options import server_of
from afina.errors import (
    AfinaError,
    Internal,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from afina.settings import Settings


def test_a_refusal_keeps_the_servers_words_code_and_param(server: ScriptedServer) -> None:
    server.refuse("GET /v1/models/x", 404, "No such model.", code="model_not_found", param="model")
    with Client(server.url, "k") as client, pytest.raises(NotFound) as caught:
        client.get("/v1/models/x")
    assert (caught.value.message, caught.value.code) == ("No such model.", "model_not_found")
    assert caught.value.param == "model"


def test_a_wrong_key_comes_with_a_remedy(server: ScriptedServer) -> None:
    server.refuse("GET /v1/files", 401, "Incorrect API key provided.")
    with Client(server.url, "k") as client, pytest.raises(Unauthenticated) as caught:
        client.get("/v1/files")
    assert "AFINA_API_KEY" in caught.value.one_line()


def test_a_page_that_is_no_json_is_an_error_and_not_a_crash(server: ScriptedServer) -> None:
    server.say_bytes("GET /v1/files", b"<html>proxy</html>", "text/html")
    with Client(server.url, "k") as client, pytest.raises(Internal, match="not a JSON object"):
        client.get("/v1/files")


def test_a_list_is_read_page_after_page(server: ScriptedServer) -> None:
    server.say(
        "GET /v1/files",
        {"data": [{"id": "a"}, {"id": "b"}], "has_more": True},
        {"data": [{"id": "c"}], "has_more": False},
    )
    with Client(server.url, "k") as client:
        assert [item["id"] for item in client.every("/v1/files", limit=2)] == ["a", "b", "c"]
    assert server.asked[1].query == "limit=2&after=b"


def test_the_key_goes_into_the_header_and_nowhere_else(server: ScriptedServer) -> None:
    server.say("POST /v1/fine_tuning/jobs", {"id": "ftjob-1"})
    with Client(server.url, "sk-afina-secret") as client:
        client.post("/v1/fine_tuning/jobs", {"model": "m"}, idempotency_key="one")
    asked = server.asked[0]
    assert asked.headers["authorization"] == "Bearer sk-afina-secret"
    assert asked.headers["idempotency-key"] == "one"
    assert b"secret" not in asked.body


def test_a_stream_without_its_end_is_said_to_be_broken(server: ScriptedServer) -> None:
    server.stream("To be", end=False)
    with Client(server.url, "k") as client:
        chunks = client.events("/v1/chat/completions", {})
        assert next(chunks)["choices"][0]["delta"]["content"] == "To be"
        with pytest.raises(Unavailable, match="broke the answer off"):
            next(chunks)


def test_an_error_within_a_stream_is_raised(server: ScriptedServer) -> None:
    server.say_bytes("POST /v1/x", b'data: {"error": {"message": "The engine failed."}}\n\n')
    with Client(server.url, "k") as client, pytest.raises(AfinaError, match=r"The engine failed\."):
        list(client.events("/v1/x", {}))


def test_a_file_is_uploaded_with_its_name_and_purpose(
    server: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"messages": []}\n')
    server.say("POST /v1/files", {"id": "file-1"})
    with Client(server.url, "k") as client:
        assert client.upload(path, "fine-tune")["id"] == "file-1"
    body = server.asked[0].body
    assert b'filename="rows.jsonl"' in body
    assert b'{"messages": []}' in body
    assert b"fine-tune" in body


def test_a_pipe_is_not_uploaded_because_nobody_knows_its_length(
    server: ScriptedServer, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    client = Client(server.url, "k")
    with pytest.raises(InvalidRequest, match="is a pipe or a device"):
        client.upload(tmp_path / "pipe", "fine-tune")


def test_the_colons_of_tuned_names_stay_and_slashes_do_not() -> None:
    assert segment("ft:base:org::abcdefgh") == "ft:base:org::abcdefgh"
    assert segment("a/b c") == "a%2Fb%20c"


def test_commands_find_the_server_that_runs_on_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFINA_BASE_URL", raising=False)
    assert server_of(Settings.load(data=tmp_path, port=1234)) == "http://127.0.0.1:1234"
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:4321", "pid": 1}')
    assert server_of(Settings.load(data=tmp_path)) == "http://127.0.0.1:4321"
    named = Settings.load(data=tmp_path, base_url="http://elsewhere:80/v1/")
    assert server_of(named) == "http://elsewhere:80"
    (tmp_path / "server.json").write_text("half a fi")
    assert server_of(Settings.load(data=tmp_path, port=1234)) == "http://127.0.0.1:1234"
