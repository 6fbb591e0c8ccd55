"""The engine's process: `python -m afina.serving --data DIR`, or `afina engine`.

SIGTERM and SIGINT drain: what runs is finished, what comes is refused. If the step loop breaks,
every stream is told and the process exits with 1, and with 75 if it hangs, so that its supervisor
starts another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

import structlog
import uvloop

from afina.domain.collector import settle
from afina.domain.orphans import die_with_parent
from afina.errors import AfinaError
from afina.serving.heartbeat import HUNG, beat
from afina.serving.listener import Listener, listen
from afina.serving.server import Door
from afina.settings import Settings

DRAIN_S = 60.0
TIDY_S = 15.0
_LOG = structlog.get_logger(__name__)


def serve(settings: Settings, preload: str | None = None, beat_fd: int | None = None) -> int:
    """Answers on the engine's socket until SIGTERM or SIGINT; the exit code. `beat_fd`: a pipe that
    is told each second that the engine lives."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, preload, beat_fd))


async def _serve(settings: Settings, preload: str | None, beat_fd: int | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    door = Door(settings)
    path = settings.engine_socket
    beating = asyncio.ensure_future(beat(beat_fd, door.look))
    server = await listen(path, door.handle)
    leaving: list[asyncio.Future[None]] = []
    door.hung.add_done_callback(lambda _: leaving.append(asyncio.ensure_future(_leave(server))))
    _LOG.info("engine.ready", socket=str(path))
    if preload is not None:
        await door.preload(preload)
        settle()
    tidy = asyncio.ensure_future(door.tidy(TIDY_S))
    door.fault.add_done_callback(lambda _: stop.set())
    await stop.wait()
    tidy.cancel()
    broke = door.fault.done()
    await door.drain(0.0 if broke else DRAIN_S)
    await server.close(patience_s=2.0)
    beating.cancel()
    return 1 if broke else 0


async def _leave(server: Listener) -> None:
    """Ends the process as soon as its clients have been told, whatever still waits for the step
    loop's thread: that one never comes back."""
    await server.close(patience_s=2.0)
    os._exit(HUNG)


def main() -> int:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m afina.serving", description=__doc__)
    parser.add_argument("--data", help="the data directory")
    parser.add_argument("--parent-fd", type=int, help="a pipe whose end means: leave at once")
    parser.add_argument("--preload", metavar="BASE", help="load this base model at once")
    given = parser.parse_args()
    die_with_parent(given.parent_fd)
    try:
        return serve(Settings.load(data=given.data), given.preload)
    except AfinaError as error:
        sys.stderr.write(f"{error.one_line()}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
