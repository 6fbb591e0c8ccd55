"""The pages alone behind a server on a free port: no engine, no worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from tests.live import LivePlatform, wait_until
from tests.unit.web.site import Site


@contextmanager
def served_alone(data: Path, fill: Callable[[Site], None] | None = None) -> Iterator[LivePlatform]:
    """Serves the pages over `data`, after `fill` has put there what they show."""
    site = Site(data)
    if fill is not None:
        fill(site)
    config = uvicorn.Config(
        cast(Any, site.pages), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until("the pages answer", lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield cast(LivePlatform, SimpleNamespace(port=port, data=data))
    server.should_exit = True
    thread.join(30)
    site.platform.close()
