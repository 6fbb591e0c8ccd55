"""The static files: read once, sent compressed, addressed by their hash so that browsers keep them.

Only what lies in the folder `static` of the package is served; a path is looked up, never opened.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static/"
_KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".csv": "text/csv; charset=utf-8",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class StaticFile:
    """A file with its compressed twin."""

    kind: str
    plain: bytes
    packed: bytes
    sha256: str


@functools.cache
def static_files() -> dict[str, StaticFile]:
    """All static files by their path below the folder."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _KINDS:
            content = path.read_bytes()
            name = path.relative_to(FOLDER).as_posix()
            packed = gzip.compress(content, 9, mtime=0)
            digest = hashlib.sha256(content).hexdigest()
            found[name] = StaticFile(_KINDS[path.suffix], content, packed, digest)
    return found


@functools.cache
def _edition() -> str:
    """A hash over all files: modules import each other by plain names, so all change together."""
    total = hashlib.sha256()
    for name, file in static_files().items():
        total.update(f"{name} {file.sha256}\n".encode())
    return total.hexdigest()[:12]


def url(name: str) -> str:
    """Where the page finds that file. Raises KeyError for one that is not there."""
    static_files()[name]
    return f"{PREFIX}{_edition()}/{name}"


async def serve(request: Request) -> Response:
    """One static file; one of another edition is sent too, but not kept."""
    edition, _, name = request.url.path.removeprefix(PREFIX).partition("/")
    file = static_files().get(name)
    if file is None:
        return Response("", status_code=404)
    headers = {
        "cache-control": _FOREVER if edition == _edition() else "no-store",
        "vary": "accept-encoding",
        "etag": f'"{file.sha256[:16]}"',
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(file.packed, headers=headers, media_type=file.kind)
    return Response(file.plain, headers=headers, media_type=file.kind)
