"""The platform's processes, each in the foreground: `run_api`, `run_worker`, `run_engine`.

The supervisor starts this module as a program (`python -m afina.cli.serve ROLE …`); the command
line calls the same functions. A role with a `parent_fd` ends with the process that started it.
Imports stand inside the functions: a role loads only what it needs, and watches its parent first.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from afina.domain.collector import load_in_peace
from afina.domain.orphans import die_with_parent

if TYPE_CHECKING:
    from afina.settings import Settings


BACKLOG = 2048
"""Connections that may wait while the api starts again."""


def run_api(settings: Settings, parent_fd: int | None = None, socket_fd: int | None = None) -> int:
    """Serve HTTP until SIGTERM or SIGINT; on `socket_fd`, if the supervisor listens already."""
    die_with_parent(parent_fd)
    from afina.api.server import run
    from afina.cli.dashboard import with_pages

    if socket_fd is not None:
        run(settings, listener=socket.socket(fileno=socket_fd), compose=with_pages)
        return 0
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"afina api listens on {host} port {port}", flush=True)
        run(settings, listener=listener, compose=with_pages)
    return 0


def run_worker(settings: Settings, parent_fd: int | None = None) -> int:
    """Take jobs and walk them along their road until SIGTERM or SIGINT."""
    die_with_parent(parent_fd)
    from afina.api import logs
    from afina.pipeline.worker import Worker

    logs.configure(settings.log_level)
    return Worker.open(settings).run()


def run_engine(settings: Settings, parent_fd: int | None = None, beat_fd: int | None = None) -> int:
    """Answer for base and tuned models on the engine's socket until SIGTERM or SIGINT; `beat_fd` is
    where the supervisor hears that it lives."""
    die_with_parent(parent_fd)
    load_in_peace()
    from afina.api import logs
    from afina.serving.__main__ import serve

    logs.configure(settings.log_level)
    return serve(settings, preload=only_base(settings), beat_fd=beat_fd)


def only_base(settings: Settings) -> str | None:
    """The base model to load before anybody asks: the one on this machine, if it is one."""
    found = [path.parent.name for path in settings.models.glob("*/afina.json")]
    return found[0] if len(found) == 1 else None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises BadSettings with a remedy when the address cannot be had."""
    from afina.errors import BadSettings

    with contextlib.ExitStack() as undo:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            listener = undo.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise BadSettings(
                f"The address {host}:{port} cannot be used: {error.strerror or error}.",
                param="port",
                remedy="Choose another with --port, or --port 0 for any that is free.",
            ) from None
        undo.pop_all()
    return listener


def main(arguments: list[str] | None = None) -> int:
    """One role, as the supervisor starts it."""
    parser = argparse.ArgumentParser(prog="afina.cli.serve", description=__doc__)
    parser.add_argument("role", choices=("api", "worker", "engine"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--parent-fd", type=int)
    parser.add_argument("--socket-fd", type=int)
    parser.add_argument("--beat-fd", type=int)
    given = parser.parse_args(arguments)
    die_with_parent(given.parent_fd)
    from afina.errors import AfinaError
    from afina.settings import Settings

    try:
        settings = Settings.load(data=given.data, host=given.host, port=given.port)
        if given.role == "api":
            return run_api(settings, socket_fd=given.socket_fd)
        if given.role == "worker":
            return run_worker(settings)
        return run_engine(settings, beat_fd=given.beat_fd)
    except AfinaError as error:
        print(error.one_line(), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
