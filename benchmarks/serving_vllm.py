"""vLLM as a peer of benchmarks/serving.py: two servers in vLLM's own environment, one without LoRA
and one with the same adapters that afina serves. They are started by examples/vllm/serve.py."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afina.domain.clock import SYSTEM_CLOCK
from afina.serving.journal import Journal
from afina.serving.library import Library
from afina.serving.vllm.folders import AdapterFolders
from afina.settings import Settings

SERVE = Path(__file__).parent.parent / "examples" / "vllm" / "serve.py"
START_S = 900.0


@dataclass(frozen=True)
class Peer:
    """A server that answers at `url`, and the names of the adapters that it has."""

    url: str
    adapters: list[str]


def running(url: str, settings: Settings, base_id: str, manifests: list[str]) -> Peer:
    """A server that somebody started already; it gets the adapters of `manifests`."""
    return Peer(url, _load(url, settings, base_id, manifests))


@contextlib.contextmanager
def serving(
    python: Path, settings: Settings, base_id: str, port: int, manifests: list[str]
) -> Iterator[Peer]:
    """vLLM on the base, with the adapters of `manifests`; LoRA is off if there are none."""
    words = [sys.executable, str(SERVE), "--python", str(python), "--data", str(settings.data)]
    words += ["--base", base_id, "--port", str(port), "--cache-gb", "2"]
    words += ["--adapters", str(len(manifests)), "--rank", "16"]
    log = settings.data / f"vllm-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        yield Peer(url, _load(url, settings, base_id, manifests))
    finally:
        process.terminate()
        process.wait()


def _load(url: str, settings: Settings, base_id: str, manifests: list[str]) -> list[str]:
    library = Library(settings, Journal(settings.journal), SYSTEM_CLOCK)
    folders = AdapterFolders(settings.data / "for-vllm", None, library.bare_adapter)
    names = []
    for number, sha256 in enumerate(manifests):
        name = f"adapter-{number}"
        path = folders.make(base_id, sha256)
        told = {"lora_name": name, "lora_path": path, "load_inplace": True}
        _post(f"{url}/v1/load_lora_adapter", told)
        names.append(name)
    return names


def _post(url: str, body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=120).close()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"vLLM did not start: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except OSError:
            time.sleep(1.0)
        else:
            return
    raise SystemExit(f"vLLM did not answer within {START_S:.0f} s")
