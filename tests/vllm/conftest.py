"""A real vLLM server, and afina before it. `make vllm` starts one and runs this ring.

    python examples/vllm/serve.py --data .afina --port 18000
    AFINA_TEST_VLLM=http://127.0.0.1:18000 pytest -m slow tests/vllm

It must serve the starter model under its id. Without such a server the ring is skipped, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import openai
import pytest
from tests.live import LivePlatform

MISSING: Final = (
    "no vLLM server is named: start one with examples/vllm/serve.py and put its address into "
    "AFINA_TEST_VLLM (`make vllm` does both)"
)


@pytest.fixture(scope="session")
def vllm_url() -> str:
    """The server's address, without `/v1`."""
    url = os.environ.get("AFINA_TEST_VLLM")
    if not url:
        pytest.skip(MISSING)
    return url.rstrip("/")


@pytest.fixture(scope="module")
def platform(
    vllm_url: str, starter_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LivePlatform]:
    """`afina up` on the starter model, answered for by vLLM."""
    data = tmp_path_factory.mktemp("data")
    (data / "models").mkdir()
    (data / "models" / starter_dir.name).symlink_to(starter_dir)
    told = {
        "AFINA_ENGINE__VLLM__URL": vllm_url,
        "AFINA_TRAINING__PRECISION": "bf16",
        "AFINA_TRAINING__THREADS": "0",
        "AFINA_MODERATION__BACKEND": "off",
    }
    with LivePlatform(data, told) as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: LivePlatform) -> Iterator[openai.OpenAI]:
    """The official client."""
    key = (platform.data / "api-key").read_text().strip()
    url = f"http://127.0.0.1:{platform.port}/v1"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=200) as client:
        yield client
