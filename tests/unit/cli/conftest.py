"""A scripted server: real HTTP on a port of its own, with the answers that a test wrote down."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner, Result

from afina.cli.main import app


@dataclass
class Asked:
    """A request that the server was given."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedServer:
    """Answers `METHOD /path` with what was scripted: each answer once, the last one for ever."""

    answers: dict[str, list[tuple[int, bytes, str]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def say(self, what: str, *bodies: object, status: int = 200) -> None:
        """Script JSON answers."""
        rows = [(status, json.dumps(body).encode(), "application/json") for body in bodies]
        self.answers.setdefault(what, []).extend(rows)

    def say_bytes(self, what: str, body: bytes, kind: str = "application/octet-stream") -> None:
        """Script an answer as it is."""
        self.answers.setdefault(what, []).append((200, body, kind))

    def refuse(self, what: str, status: int, message: str, **more: object) -> None:
        """Script an error in the wire's envelope."""
        self.say(what, {"error": {"message": message, **more}}, status=status)

    def stream(self, *pieces: str, end: bool = True) -> None:
        """Script a streamed chat answer."""
        lines = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
        text += "data: [DONE]\n\n" if end else ""
        self.say_bytes("POST /v1/chat/completions", text.encode(), "text/event-stream")

    def take(self, asked: Asked) -> tuple[int, bytes, str]:
        self.asked.append(asked)
        rows = self.answers.get(f"{asked.method} {asked.path}")
        if not rows:
            error = {"error": {"message": f"nothing scripted for {asked.path}"}}
            return 404, json.dumps(error).encode(), "application/json"
        return rows.pop(0) if len(rows) > 1 else rows[0]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that the commands find by their settings."""
    script = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            asked = Asked(
                self.command,
                parts.path,
                parts.query,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
            status, body, kind = script.take(asked)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{listening.server_address[1]}"
    monkeypatch.setenv("AFINA_BASE_URL", script.url)
    monkeypatch.setenv("AFINA_API_KEY", "sk-afina-test")
    yield script
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def afina(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Runs a command in this process, with a data directory of its own."""
    monkeypatch.setenv("AFINA_DATA", str(tmp_path / "data"))
    runner = CliRunner()

    def run(*arguments: str, typed: str | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=typed, prog_name="afina")

    return run
