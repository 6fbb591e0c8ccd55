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


class Served:
    """A server that can go away, and come back on its port."""

    def __init__(self, site: Site, data: Path) -> None:
        self.data = data
        self.port = 0
        self._site = site
        self.start()

    def start(self) -> None:
        """Returns when pages are answered."""
        config = uvicorn.Config(
            cast(Any, self._site.pages),
            port=self.port,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until("the pages answer", lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Nobody answers any more."""
        self._server.should_exit = True
        self._thread.join(30)

    def as_platform(self) -> LivePlatform:
        """What a reader needs of a platform."""
        return cast(LivePlatform, SimpleNamespace(port=self.port, data=self.data))


@contextmanager
def serving(data: Path, fill: Callable[[Site], None] | None = None) -> Iterator[Served]:
    """Serves the pages over `data`, after `fill` has put there what they show."""
    site = Site(data)
    if fill is not None:
        fill(site)
    served = Served(site, data)
    yield served
    served.stop()
    site.platform.close()


@contextmanager
def served_alone(data: Path, fill: Callable[[Site], None] | None = None) -> Iterator[LivePlatform]:
    """The same, for readers of a server that stays."""
    with serving(data, fill) as served:
        yield served.as_platform()
