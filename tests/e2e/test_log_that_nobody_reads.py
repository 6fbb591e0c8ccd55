"""Requests are answered though nothing can be written into the log any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from tests.live import wait_until

REQUESTS = 600
"""Their lines are twice what the pipe below takes."""


@pytest.mark.long
def test_a_log_that_takes_no_more_lines_holds_no_request_up(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "afina.cli", "api", "--data", str(tmp_path), "--port", "0"]
    api = subprocess.Popen(command, stderr=writing, stdout=subprocess.PIPE, text=True)
    os.close(writing)
    assert api.stdout is not None
    try:
        port = api.stdout.readline().split()[-1]
        key = wait_until("there is a key", lambda: key_in(tmp_path))
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=30,
        ) as client:
            wait_until("the api answers", lambda: answers(client))
            for _ in range(REQUESTS):
                assert client.get("/v1/files").status_code == 200
    finally:
        api.terminate()
        os.close(reading)
        api.stdout.close()
        api.wait(60)


def key_in(data: Path) -> str | None:
    path = data / "api-key"
    return path.read_text().strip() if path.exists() else None


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/v1/files").status_code == 200
    except httpx2.TransportError:
        return False
