"""Children come back after growing pauses; one supervisor a data directory; one line a refusal."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from afina.cli.children import FORGIVEN_AFTER_S, Child, ChildSpec
from afina.cli.serve import listen
from afina.cli.up import is_loopback, run_up
from afina.domain.clock import ManualClock
from afina.errors import BadSettings
from afina.settings import Settings

ENDS = (sys.executable, "-c", "import sys; print('last words'); sys.exit(3)")
STAYS = (sys.executable, "-c", "import time; time.sleep(60)")


def child(tmp_path: Path, arguments: tuple[str, ...], clock: ManualClock) -> Child:
    return Child(ChildSpec("part", arguments, tmp_path / "logs" / "part.log", ()), clock)


def wait_for_end(watched: Child) -> None:
    while watched.is_alive:
        pass


def test_a_child_that_ends_is_said_once_and_started_again_when_its_pause_is_over(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    watched = child(tmp_path, ENDS, clock)
    watched.start()
    wait_for_end(watched)
    line = watched.tend()
    assert line is not None
    assert "exit code 3" in line
    assert "in 0.1 s" in line
    assert watched.tend() is None
    first = watched.pid
    clock.advance(0.2)
    watched.tend()
    assert watched.pid != first
    wait_for_end(watched)
    assert "in 0.2 s" in (watched.tend() or "")
    assert watched.last_words() == "last words"
    assert (tmp_path / "logs" / "part.log").read_text().count("last words") == 2


def test_a_child_that_lived_for_long_is_forgiven(tmp_path: Path) -> None:
    clock = ManualClock()
    watched = child(tmp_path, STAYS, clock)
    for _ in range(2):
        watched.start()
        clock.advance(FORGIVEN_AFTER_S + 1)
        watched.kill()
        assert watched.tend() is not None or watched.deaths == 1
    assert watched.deaths == 1


def test_a_killed_child_is_said_with_its_signal(tmp_path: Path) -> None:
    watched = child(tmp_path, STAYS, ManualClock())
    watched.start()
    assert watched.pid is not None
    os.kill(watched.pid, 9)
    wait_for_end(watched)
    assert "SIGKILL" in (watched.tend() or "")


def test_a_child_that_was_asked_to_leave_is_not_started_again(tmp_path: Path) -> None:
    clock = ManualClock()
    watched = child(tmp_path, ENDS, clock)
    watched.start()
    wait_for_end(watched)
    watched.tend()
    watched.ask_to_leave()
    clock.advance(100)
    assert not watched.is_alive
    watched.kill()


def test_a_taken_port_is_one_line_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadSettings) as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "\n" not in caught.value.one_line()
    assert "--port" in caught.value.one_line()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(BadSettings):
        listen("192.0.2.1", 0)


def test_port_zero_takes_a_free_one() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("me", False)],
)
def test_only_loopback_is_closed_to_others(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_one_data_directory_has_one_supervisor(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    program = (
        "import fcntl, sys\n"
        f"f = open({str(data / 'up.lock')!r}, 'a+'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "f.write('4711\\n'); f.flush(); print('locked', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(BadSettings) as caught:
        run_up(Settings.load(data=data, port=0))
    other.communicate()
    assert "process 4711" in caught.value.message
    assert "--data" in caught.value.one_line()


def test_a_taken_port_leaves_nothing_running_and_no_server_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadSettings):
        run_up(Settings.load(data=data, port=taken.getsockname()[1]))
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert not (data / "server.json").exists()
    assert not (data / "afina.db").exists()
    assert json.loads((data / "up.lock").read_text()) == os.getpid()
