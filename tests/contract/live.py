"""A live server for tests: the real application and store behind a real uvicorn on a free port,
with the scripted engine that the package ships in the place of the network."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from tests.tiny import write_tiny_tokenizer

from afina.api.app import create_app
from afina.api.wire_protocol import EnvelopedProtocol
from afina.cli.dashboard import with_pages
from afina.domain.codec import encode
from afina.domain.models import BaseModel
from afina.service.platform import Platform
from afina.serving.testing import ScriptedEngine
from afina.settings import Settings

BASE = "tiny-base"
ALIAS = "gpt-4o-mini-2024-07-18"
CONTEXT_TOKENS = 512


class Live:
    """What a test needs of a running server."""

    def __init__(self, settings: Settings, url: str, engine: ScriptedEngine, app: Any) -> None:
        self.settings = settings
        self.url = url
        self.engine = engine
        self.server: uvicorn.Server | None = None
        self._app = app
        self.key = (settings.data / "api-key").read_text().strip()
        self.http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {self.key}"}, trust_env=False
        )

    @property
    def platform(self) -> Platform:
        """The server's own platform."""
        platform: Platform = self._app.state.parts.platform
        return platform

    def stop(self) -> None:
        """Asks the server to stop, as SIGTERM does."""
        assert self.server is not None
        self.server.should_exit = True


def make_base(models: Path, base_id: str = BASE, **facts: Any) -> BaseModel:
    """A base model without a network: tokenizer, template and record."""
    folder = models / base_id
    write_tiny_tokenizer(folder)
    record = BaseModel(
        id=base_id,
        path=str(folder),
        sha256="a" * 64,
        created_at=1_700_000_000,
        context_tokens=CONTEXT_TOKENS,
        capabilities={"train_tokens_per_s": 1000.0},
        **facts,
    )
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    return record


def settings_for(folder: Path, **given: Any) -> Settings:
    """Settings of a data directory of its own, with one tiny base and an alias for it."""
    make_base(folder / "models")
    return Settings(data=folder, port=0, model_aliases={ALIAS: BASE}, **given)


@contextmanager
def running(settings: Settings, *, pages: bool = False) -> Iterator[Live]:
    """The server for these settings, with the dashboard in front of it if asked for, until the
    block ends."""
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        with_pages(app) if pages else app,
        loop="uvloop",
        http=EnvelopedProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def started(*args: Any, **named: Any) -> None:
        await startup(*args, **named)
        ready.set()

    server.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    journal = settings.journal
    settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    with ScriptedEngine(settings.engine_socket, journal) as engine:
        thread.start()
        assert ready.wait(30), "the server did not start"
        live = Live(settings, f"http://127.0.0.1:{listener.getsockname()[1]}", engine, app)
        live.server = server
        try:
            yield live
        finally:
            live.http.close()
            server.should_exit = True
            thread.join(30)
            listener.close()
