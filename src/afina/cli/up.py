"""`afina up`: the supervisor of api, worker and engine on one data directory.

It listens itself and hands the socket down, so an api that dies leaves the address in place and
its clients waiting a moment. It holds a lock on the data directory, and the writing end of the
pipe that its children watch: even after SIGKILL nothing of the platform is left behind.
"""

from __future__ import annotations

import fcntl
import http.client
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Final

from afina.cli.children import Child, ChildSpec
from afina.cli.heartbeats import Heartbeats
from afina.cli.serve import listen
from afina.domain.clock import SYSTEM_CLOCK
from afina.domain.flag import SignalFlag
from afina.domain.ids import SYSTEM_IDS
from afina.errors import AfinaError, BadSettings
from afina.serving.heartbeat import HUNG
from afina.serving.restarts import Restarts
from afina.settings import OFFLINE, Settings

TICK_S: Final = 0.1
STOP_S: Final = 40.0
"""How long children may take to drain before they are ended."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DEATHS_AT_START: Final = 3
SERVER_FILE: Final = "server.json"
LOCK_FILE: Final = "up.lock"

Say = Callable[[str], None]


def run_up(settings: Settings, say: Say | None = None) -> int:
    """Run the platform until SIGTERM or Ctrl-C (a second one ends it at once); the exit code.

    Raises BadSettings where the data directory is taken or the address cannot be had.
    """
    say = say or _print
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(settings.data), listen(settings.host, settings.port) as listener:
        return Supervisor(settings, listener, say).run()


class Supervisor:
    """Three children, watched until they are no longer wanted."""

    def __init__(self, settings: Settings, listener: socket.socket, say: Say) -> None:
        self._settings = settings
        self._listener = listener
        self._say = say
        self._reading, self._writing = os.pipe()
        self._heartbeats = Heartbeats(settings.engine.hung_after_s, SYSTEM_CLOCK)
        self._restarts = Restarts()
        self._children = {name: self._child(name) for name in ("engine", "worker", "api")}
        self._signals = SignalFlag()
        self._ready = False

    @property
    def url(self) -> str:
        """Where clients find the api, without `/v1`."""
        host, port = self._listener.getsockname()[:2]
        host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> int:
        """Start, watch, stop."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        server_file = self._settings.data / SERVER_FILE
        try:
            self._write_restarts()
            self._children["engine"].start()  # it takes longest, and needs no database
            self._prepare_store()
            self._children["worker"].start()
            self._children["api"].start()
            _write_private(server_file, {"url": self.url, "pid": os.getpid()})
            self._warn_of_open_host()
            return self._watch()
        finally:
            server_file.unlink(missing_ok=True)
            self._stop()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # nothing is left that could be hurried

    def _prepare_store(self) -> None:
        from afina.service.keys import ensure_first_key
        from afina.service.platform import Platform

        platform = Platform.open(self._settings)
        try:
            ensure_first_key(platform)
        finally:
            platform.close()

    def _watch(self) -> int:
        while not self._signals.is_up():
            self._listen_to_the_engine()
            for child in self._children.values():
                line = child.tend()
                if line is not None:
                    self._say(line)
                    self._note(child, line)
                if not self._ready and child.deaths >= DEATHS_AT_START:
                    self._say(f"The {child.spec.name} does not start: {child.last_words()}")
                    return 1
            if not self._ready and is_healthy(self.url):
                self._ready = True
                self._greet()
            self._signals.wait(TICK_S)
        return 0

    def _listen_to_the_engine(self) -> None:
        engine = self._children["engine"]
        if engine.pid is not None and engine.is_alive:
            reason = self._heartbeats.look(engine.pid)
            if reason is not None:
                engine.end_as_hung(reason)

    def _note(self, child: Child, line: str) -> None:
        """Counts the engine's deaths for /metrics and `afina doctor`."""
        if child.spec.name != "engine":
            return
        hung = child.was_hung or child.exit_code == HUNG
        self._restarts = replace(
            self._restarts,
            ended=self._restarts.ended + (not hung),
            hung=self._restarts.hung + hung,
            last=SYSTEM_CLOCK.now(),
            reason=line.partition(";")[0] + ".",
        )
        self._write_restarts()

    def _write_restarts(self) -> None:
        try:
            self._restarts.write(self._settings.engine_folder)
        except OSError as error:  # a full disk, say: the engine matters more than its history
            self._say(f"How often the engine was started cannot be written: {error}")

    def _greet(self) -> None:
        from afina.service.sessions import new_link

        data = self._settings.data
        self._say(f"afina answers at {self.url}/v1 (documentation: {self.url}/docs)")
        if is_loopback(self._settings.host):
            self._say(f"Dashboard: {self.url}{new_link(data, SYSTEM_CLOCK, SYSTEM_IDS)}")
        else:
            self._say(f"Dashboard: {self.url}/ (sign in with an API key)")
        self._say(f"Data directory: {data}")
        self._say(f"API key: in {data / 'api-key'}")
        if not any(self._settings.models.glob("*/afina.json")):
            self._say("There is no base model yet: afina models pull smollm2-135m-instruct")

    def _warn_of_open_host(self) -> None:
        if not is_loopback(self._settings.host):
            self._say(
                f"Warning: {self._settings.host} can be reached from other machines, and API keys "
                "travel unencrypted. Put a TLS proxy in front, or use --host 127.0.0.1."
            )

    def _stop(self) -> None:
        """The api first, so that open answers can end; then the others; then by force."""
        enough = max(self._signals.count, 1) + 1
        deadline = SYSTEM_CLOCK.monotonic() + STOP_S
        for names in (("api", "worker"), ("engine",)):
            for name in names:
                self._children[name].ask_to_leave()
            while self._signals.count < enough and SYSTEM_CLOCK.monotonic() < deadline:
                if not any(self._children[name].is_alive for name in names):
                    break
                self._signals.clear()
                self._signals.wait(TICK_S / 2)
        for child in self._children.values():
            child.kill()
        os.close(self._writing)
        os.close(self._reading)
        self._heartbeats.close()

    def _child(self, name: str) -> Child:
        settings = self._settings
        arguments = [
            sys.executable, "-m", "afina.cli.serve", name,
            "--data", str(settings.data),
            "--host", settings.host,
            "--port", str(settings.port),
            "--parent-fd", str(self._reading),
        ]  # fmt: skip
        fds = [self._reading]
        exits = {}
        if name == "api":
            arguments += ["--socket-fd", str(self._listener.fileno())]
            fds.append(self._listener.fileno())
        if name == "engine":
            arguments += ["--beat-fd", str(self._heartbeats.writing)]
            fds.append(self._heartbeats.writing)
            exits[HUNG] = "its steps stood still"
        log = settings.data / "logs" / f"{name}.log"
        return Child(
            ChildSpec(name, tuple(arguments), log, tuple(fds), OFFLINE, exits), SYSTEM_CLOCK
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signals.lift()


def is_healthy(url: str) -> bool:
    """Whether `GET url/health` answers 200."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _locked(data: Path) -> Iterator[IO[str]]:
    path = data / LOCK_FILE
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BadSettings(
                f"Another `afina up` (process {holder}) already runs on {data}.",
                param="data",
                remedy="Use that one, stop it first, or choose another --data.",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file


def _write_private(path: Path, value: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(value) + "\n")
    temporary.replace(path)


def _print(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """`python -m afina.cli.up`: the supervisor with settings from the environment alone."""
    try:
        return run_up(Settings.load())
    except AfinaError as error:
        print(error.one_line(), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
