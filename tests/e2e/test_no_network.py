"""Nothing leaves the machine: the platform starts, tunes and answers where no route out exists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.live import BASE
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parent.parent.parent
ALONE = ("unshare", "--map-root-user", "--net")


def test_a_job_and_a_chat_need_no_route_out(tmp_path: Path) -> None:
    try:
        possible = (
            subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip(
            "this system gives no network namespace to users (unshare --map-root-user --net)"
        )
    data = tmp_path / "data"
    make_tiny_model(data / "models" / BASE, base_id=BASE)
    done = subprocess.run(
        [*ALONE, sys.executable, str(ROOT / "tests" / "e2e" / "inside_no_network.py"), str(data)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
