"""Two hundred bad inputs and more: each gets its clear error, memory stays flat, the service stays
up. The table is in `bad_inputs.py`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx2
import psutil
import pytest
from tests.contract.bad_inputs import BASE, Case, cases
from tests.contract.live import Live, settings_for

from afina.settings import Settings

CASES = cases()
LIMITS = {"max_body_bytes": 2_000_000, "max_upload_bytes": 2_500_000}
RSS_GROWTH_BYTES = 200 * 1024 * 1024
RSS_IDLE_BYTES = 200 * 1024 * 1024
START = (
    "import socket, sys\n"
    "from pathlib import Path\n"
    "from afina.api.server import run\n"
    "from afina.settings import Settings\n"
    "listener = socket.socket(fileno=int(sys.argv[2]))\n"
    "settings = Settings(data=Path(sys.argv[1]), max_body_bytes=2_000_000,"
    " max_upload_bytes=2_500_000, log_level=sys.argv[3])\n"
    "run(settings, listener=listener)\n"
    "assert 'torch' not in sys.modules\n"
)


def send(http: httpx2.Client, case: Case) -> httpx2.Response:
    headers = {"content-type": "application/json", **case.headers}
    return http.request(case.method, case.path, content=case.body, headers=headers)


def judge(response: httpx2.Response, case: Case) -> None:
    assert response.status_code == case.status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (case.code, case.param), error
    assert case.word in error["message"], error
    assert len(error["message"]) < 2000
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] == "false"
    assert "Traceback" not in response.text


def test_there_are_two_hundred_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture(scope="module")
def http(module_live: Live) -> httpx2.Client:
    return module_live.http


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(tmp_path_factory.mktemp("data"), **LIMITS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:80])
def test_each_bad_input_gets_its_clear_error(http: httpx2.Client, case: Case) -> None:
    judge(send(http, case), case)


@contextmanager
def server_process(
    data: Path, stderr: IO[bytes] | None = None, level: str = "error"
) -> Iterator[tuple[psutil.Process, str]]:
    """The API as a process of its own, started as `afina api` starts it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    command = [sys.executable, "-c", START, str(data), str(listener.fileno()), level]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=stderr)
    try:
        yield psutil.Process(process.pid), f"http://127.0.0.1:{listener.getsockname()[1]}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        listener.close()


def test_bad_inputs_cost_no_memory_and_the_service_still_answers(tmp_path: Path) -> None:
    settings_for(tmp_path)
    with server_process(tmp_path) as (process, url):
        http = httpx2.Client(base_url=url, trust_env=False, timeout=60)
        assert http.get("/health").json()["parts"]["database"] == "ok"
        idle = process.memory_info().rss
        assert idle < RSS_IDLE_BYTES
        key = (tmp_path / "api-key").read_text().strip()
        http.headers["authorization"] = f"Bearer {key}"
        most = idle
        for case in CASES:
            judge(send(http, case), case)
            most = max(most, process.memory_info().rss)
        assert most - idle < RSS_GROWTH_BYTES
        assert [m["id"] for m in http.get("/v1/models").json()["data"]] == [BASE]
        http.close()
