"""The account that is moved from: an OpenAI-shaped API, read and never changed.

Only GETs are sent. What is busy or cannot be reached is asked again a few times, as long as it
says; a refusal is told in its own words. Downloads are resumed file by file: a file has its name
once all of its bytes are there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2

from afina.errors import AfinaError, BadSettings, Forbidden, NotFound, Unauthenticated, Unavailable

TRIES: Final = 5
LONGEST_PAUSE_S: Final = 60.0
_TIMEOUT: Final = httpx2.Timeout(60.0, connect=10.0)
_BUSY: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
_MAX_TEXT: Final = 300

Pause = Callable[[float], object]


class SourceRefused(AfinaError):
    """The source does not give one thing; the others can still be moved."""


@dataclass(frozen=True)
class Stored:
    """A stored completion: what was asked, what was answered."""

    id: str
    model: str
    row: dict[str, Any] | None
    """A training row; None where the answer was cut or empty."""


class Source:
    """Reads one account. `base_url` as the official client has it, with its `/v1`."""

    def __init__(
        self,
        base_url: str,
        key: str,
        transport: httpx2.BaseTransport | None = None,
        pause: Pause | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadSettings(
                f"{base_url[:200]} is no address.", remedy="It looks like https://host/v1."
            )
        if not key or not key.isascii() or not key.isprintable():
            raise BadSettings(
                "The source's key must be one line of plain characters.",
                remedy="Give it with --key-file, or - to read it from standard input.",
            )
        self.base_url = base_url.rstrip("/")
        self._pause = pause or threading.Event().wait
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT, transport=transport
        )

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def jobs(self) -> list[dict[str, Any]]:
        """All fine-tuning jobs, oldest first. Raises where the account cannot be read."""
        try:
            return list(self._every("/fine_tuning/jobs"))[::-1]
        except NotFound:
            raise NotFound(
                f"{self.base_url} has no fine-tuning jobs: nothing of that name is there.",
                remedy="The address must end as the official client's does, usually in /v1.",
            ) from None
        except SourceRefused as error:
            raise Forbidden(
                f"The key may not list fine-tuning jobs: {error.message}",
                remedy="Use a key that may read jobs and files, such as the owner's.",
            ) from None

    def file(self, file_id: str) -> dict[str, Any]:
        """What is known of a file. Raises NotFound, SourceRefused."""
        return self._get(f"/files/{quote(file_id, safe='')}")

    def download(self, file_id: str, target: Path, size: int | None) -> None:
        """Writes a file's bytes to `target`, whole or not at all. Raises NotFound, SourceRefused,
        and Unavailable where fewer or more bytes come than the file has."""
        part = target.with_name(target.name + ".part")
        path = f"/files/{quote(file_id, safe='')}/content"
        for attempt in range(TRIES):
            try:
                count = self._save(path, part)
            except httpx2.HTTPError as error:
                self._wait_or_give_up(attempt, error)
                continue
            if size is None or count == size:
                part.replace(target)
                return
            self._pause(_delay(attempt, None))
        raise Unavailable(
            f"The file {file_id} came with {count} bytes; {size} were announced.",
            remedy="Run the command again.",
        )

    def completions(self) -> Iterator[dict[str, Any]]:
        """All stored completions, oldest first. Raises SourceRefused, NotFound."""
        return self._every("/chat/completions", order="asc")

    def stored(self, completion: dict[str, Any]) -> Stored:
        """A completion with the messages that it answered."""
        path = f"/chat/completions/{quote(str(completion['id']), safe='')}/messages"
        messages = [_asked(message) for message in self._every(path, order="asc")]
        return Stored(
            str(completion["id"]), str(completion.get("model")), _row(completion, messages)
        )

    def _every(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            asked = {"limit": "100", **query, **({"after": after} if after else {})}
            page = self._get(path, asked)
            data = page.get("data")
            if not isinstance(data, list):
                raise _odd(self.base_url + path)
            yield from data
            last = data[-1].get("id") if data else None
            if not page.get("has_more") or not last or last == after:
                return
            after = str(last)

    def _get(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        for attempt in range(TRIES):
            try:
                response = self._http.get(self.base_url + path, params=query)
            except httpx2.HTTPError as error:
                self._wait_or_give_up(attempt, error)
                continue
            if response.status_code in _BUSY and attempt + 1 < TRIES and not _is_final(response):
                self._pause(_delay(attempt, response))
                continue
            return self._judged(response)
        raise AssertionError("every try ends in an answer or an error")

    def _save(self, path: str, part: Path) -> int:
        for attempt in range(TRIES):
            with self._http.stream("GET", self.base_url + path) as response:
                if response.status_code in _BUSY and attempt + 1 < TRIES:
                    self._pause(_delay(attempt, response))
                    continue
                if not response.is_success:
                    response.read()
                    self._judged(response)
                count = 0
                with part.open("wb") as file:
                    for piece in response.iter_bytes():
                        count += file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                return count
        raise AssertionError("every try ends in bytes or an error")

    def _judged(self, response: httpx2.Response) -> dict[str, Any]:
        if response.is_redirect:
            raise Unavailable(
                f"{self.base_url} sends elsewhere.", remedy="Give the address it leads to."
            )
        body: Any = None
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success:
            if isinstance(body, dict):
                return body
            raise _odd(str(response.url))
        said = _said(body, response.status_code)
        if response.status_code == 401:
            raise Unauthenticated(
                f"The source does not take the key: {said}",
                remedy="Make a new one there, and give it with --key-file.",
            )
        if response.status_code == 404:
            raise NotFound(f"The source says: {said}")
        if response.status_code in _BUSY:
            raise Unavailable(
                f"The source is busy: {said}",
                remedy="Run the command again later; what is here already is not asked for again.",
            )
        raise SourceRefused(f"The source says: {said}")

    def _wait_or_give_up(self, attempt: int, error: httpx2.HTTPError) -> None:
        if attempt + 1 < TRIES:
            self._pause(_delay(attempt, None))
            return
        raise Unavailable(
            f"{self.base_url} cannot be reached ({type(error).__name__}).",
            remedy="Look at the address and the network, then run the command again; what is here "
            "already is not asked for again.",
        ) from None


def _delay(attempt: int, response: httpx2.Response | None) -> float:
    """Seconds to wait: as long as the source says, else twice as long each time."""
    told = "" if response is None else response.headers.get("retry-after", "")
    if told.isdecimal():
        return min(float(told), LONGEST_PAUSE_S)
    return min(0.5 * 2.0**attempt, LONGEST_PAUSE_S)


def _is_final(response: httpx2.Response) -> bool:
    """Whether asking again is of no use: the account has nothing left to spend."""
    return response.headers.get("x-should-retry") == "false"


def _said(body: Any, status: int) -> str:
    fault = body.get("error") if isinstance(body, dict) else None
    text = fault.get("message") if isinstance(fault, dict) else None
    shown = "".join(c for c in str(text or "") if c.isprintable())[:_MAX_TEXT]
    return f"{shown or 'no reason given'} (status {status})"


def _odd(url: str) -> Unavailable:
    return Unavailable(
        f"{url} answered with something that is not of this API.",
        remedy="The address must end as the official client's does, usually in /v1.",
    )


def _asked(message: dict[str, Any]) -> dict[str, Any]:
    """A message as a training row holds it: without its id, parts as they were."""
    parts = message.get("content_parts")
    content = parts if isinstance(parts, list) else message.get("content")
    kept = {
        name: message[name]
        for name in ("name", "tool_calls", "tool_call_id", "function_call")
        if message.get(name)
    }
    return {"role": message.get("role"), "content": content, **kept}


def _row(completion: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    choices = completion.get("choices") or [{}]
    told = choices[0].get("message") or {}
    calls = {k: told[k] for k in ("tool_calls", "function_call") if told.get(k)}
    if choices[0].get("finish_reason") == "length" or not (told.get("content") or calls):
        return None
    if not messages:
        return None
    row: dict[str, Any] = {
        "messages": [*messages, {"role": "assistant", "content": told.get("content"), **calls}]
    }
    if completion.get("tools"):
        row["tools"] = completion["tools"]
    return row


def write_whole(path: Path, value: object) -> None:
    """Writes JSON so that a crash leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
