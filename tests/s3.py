"""A real S3 server for the tests that run on it. `AFINA_TEST_BLOBS=s3` chooses it."""

from __future__ import annotations

import os
import urllib.request
from functools import cache
from hashlib import sha256
from pathlib import Path

from afina.outside_settings import S3Settings


def on_s3() -> bool:
    """Whether this run of the tests keeps its blobs in S3."""
    return os.environ.get("AFINA_TEST_BLOBS") == "s3"


@cache
def server() -> str:
    """The URL of this process's server."""
    from moto.server import ThreadedMotoServer

    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    return f"http://{host}:{port}"


def bucket_for(folder: Path) -> S3Settings:
    """A bucket that belongs to a folder; made when it is asked for."""
    name = "test-" + sha256(str(folder).encode()).hexdigest()[:24]
    request = urllib.request.Request(f"{server()}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return S3Settings(
        bucket=name,
        prefix="afina",
        region="us-east-1",
        endpoint=server(),
        access_key_id="test",
        secret_access_key="test",
    )
