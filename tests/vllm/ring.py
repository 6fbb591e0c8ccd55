"""`make vllm`: installs vLLM in an environment of its own, starts it on loopback, runs this ring through
it, and stops it.

    python tests/vllm/ring.py [pytest arguments]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SERVE: Final = ROOT / "examples" / "vllm" / "serve.py"
START_S: Final = 600.0


def main() -> int:
    """Starts, runs, stops; pytest's exit code."""
    data = ["--data", str(ROOT / ".afina")]
    subprocess.run([sys.executable, str(SERVE), *data, "--only-install"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, str(SERVE), *data, "--port", str(port), "--context", "2048"]
    )
    try:
        wait_for(server, f"{url}/health")
        ring = [sys.executable, "-m", "pytest", "-m", "slow", "-p", "no:randomly", "tests/vllm"]
        told = {**os.environ, "AFINA_TEST_VLLM": url}
        return subprocess.run([*ring, *sys.argv[1:]], cwd=ROOT, env=told, check=False).returncode
    finally:
        server.terminate()
        server.wait()


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    """Returns once the server answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"vLLM ended with {server.returncode} before it answered")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(1.0)
        else:
            return
    raise SystemExit(f"vLLM did not answer within {START_S:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
