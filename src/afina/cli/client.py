"""A thin client for afina's own HTTP API: what the commands need and no more.

Refusals of the server and a server that cannot be reached become errors of `afina.errors`.
Nothing is retried here, so that a command never does a thing twice; `watch` waits by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx2

from afina.errors import (
    AfinaError,
    Conflict,
    Forbidden,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

_TIMEOUT: Final = httpx2.Timeout(60.0, connect=5.0)
_NO_LIMIT: Final = httpx2.Timeout(None, connect=5.0)
_LOCAL: Final = {"127.0.0.1", "localhost", "::1"}
_BY_STATUS: Final[Mapping[int, type[AfinaError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidRequest,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
}
_REMEDIES: Final[Mapping[int, str]] = {
    401: "Set AFINA_API_KEY, or point AFINA_DATA at the server's data directory.",
}


class Client:
    """Speaks to one server with one key. Paths are given without the server, as `/v1/files`."""

    def __init__(self, url: str, key: str, transport: httpx2.BaseTransport | None = None) -> None:
        self.url = url
        # A proxy of the environment is never asked for a server on this machine.
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=urlsplit(url).hostname not in _LOCAL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """The object at `path`. Parameters that are None are left out."""
        params = {name: value for name, value in query.items() if value is not None}
        return self._object(self._send("GET", path, params=params or None))

    def post(
        self, path: str, body: Mapping[str, object] | None = None, **headers: str
    ) -> dict[str, Any]:
        """The answer to a POST of `body` as JSON; headers are spelt with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._object(self._send("POST", path, json=body or {}, headers=named))

    def delete(self, path: str) -> dict[str, Any]:
        """The answer to a DELETE."""
        return self._object(self._send("DELETE", path))

    def upload(self, path: Path, purpose: str, name: str | None = None) -> dict[str, Any]:
        """Send a file from disk, streamed, and return its object; `name` is what it is to be
        called, where that is not its name on the disk. Raises InvalidRequest for what has no
        length that could be told beforehand."""
        if not path.is_file():
            raise InvalidRequest(f"{path} is a pipe or a device.", remedy="Give a file's path.")
        with path.open("rb") as file:
            response = self._send(
                "POST",
                "/v1/files",
                data={"purpose": purpose},
                files={"file": (name or path.name, file)},
                timeout=_NO_LIMIT,
            )
        return self._object(response)

    def download(self, path: str) -> bytes:
        """The bytes at `path`."""
        return self._send("GET", path, timeout=_NO_LIMIT).content

    def save(self, path: str, target: Path) -> int:
        """Stream the bytes at `path` into the file `target`; returns how many there were."""
        count = 0
        with self.stream("GET", path) as response, target.open("wb") as file:
            for chunk in response.iter_bytes():
                count += file.write(chunk)
        return count

    def events(self, path: str, body: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """The JSON objects of a stream of server-sent events, until `[DONE]`."""
        with self.stream("POST", path, json=body) as response:
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                chunk = json.loads(data)
                if "error" in chunk:
                    raise _refusal(500, chunk)
                yield chunk
        raise Unavailable("The server broke the answer off.", remedy="Ask again.")

    def every(self, path: str, limit: int = 100, **query: str | None) -> Iterator[dict[str, Any]]:
        """All objects of a list, page after page."""
        after: str | None = None
        while True:
            page = self.get(path, limit=limit, after=after, **query)
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    def _send(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **how)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise _refusal(response.status_code, _body(response))
        return response

    @contextmanager
    def stream(self, method: str, path: str, **how: Any) -> Iterator[httpx2.Response]:
        """A response whose body is read piece by piece."""
        try:
            with self._http.stream(method, path, timeout=_NO_LIMIT, **how) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response.status_code, _body(response))
                yield response
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def _object(self, response: httpx2.Response) -> dict[str, Any]:
        body = _body(response)
        if body is None:
            raise Internal(
                f"{self.url} answered with something that is not a JSON object.",
                remedy="Check that an afina server stands there.",
            )
        return body

    def _unreachable(self, error: httpx2.HTTPError) -> AfinaError:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Unavailable(
                f"No server answers at {self.url}.",
                code="unreachable",
                remedy="Start one with `afina up`, or name it with --server or AFINA_BASE_URL.",
            )
        return Unavailable(
            f"The connection to {self.url} was lost ({type(error).__name__}).",
            code="unreachable",
            remedy="Look at the server's output, then try again.",
        )


def segment(name: str) -> str:
    """A name as one part of a path; the colons of tuned models' names stay."""
    return quote(name, safe=":")


def _body(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _refusal(status: int, body: Mapping[str, Any] | None) -> AfinaError:
    fault = (body or {}).get("error")
    if not isinstance(fault, dict):
        fault = {"message": f"The server answered with status {status}."}
    kind = _BY_STATUS.get(status, Internal)
    return kind(
        str(fault.get("message") or f"The server answered with status {status}."),
        param=fault.get("param"),
        code=fault.get("code"),
        remedy=_REMEDIES.get(status),
    )
