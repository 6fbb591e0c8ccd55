"""The pages over a real platform, asked in this process."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
from tests.platforms import open_platform

from afina.service.keys import ensure_first_key
from afina.service.platform import Platform
from afina.web.app import Pages, create_pages
from afina.web.live import LiveJobs
from afina.web.visit import Rooms

HOST = "http://127.0.0.1:8383"


class Site:
    """A browser without scripts: it keeps cookies and reads form tokens."""

    def __init__(self, data: Path) -> None:
        self.platform: Platform = open_platform(data)
        shutil.rmtree(self.platform.settings.models)  # its base has no tokenizer to check with
        ensure_first_key(self.platform)
        self.key = (data / "api-key").read_text().strip()
        rooms = Rooms(self.platform, cast(Any, None), cast(Any, None), LiveJobs())
        self.pages: Pages = create_pages(lambda: rooms)
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **given: Any) -> httpx2.Response:
        """One request; redirects are not followed."""

        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=cast(Any, self.pages))
            async with httpx2.AsyncClient(
                transport=transport, base_url=HOST, cookies=self.cookies, trust_env=False
            ) as client:
                return await client.request(method, path, **given)

        answer = anyio.run(send)
        for name, value in answer.cookies.items():
            self.cookies[name] = value
        return answer

    def sign_in(self, key: str | None = None) -> httpx2.Response:
        """As the form does."""
        return self.ask("POST", "/sign-in", data={"key": key or self.key})

    def token(self) -> str:
        """The form token of the session."""
        found = re.search(r'data-token="([^"]+)"', self.ask("GET", "/settings").text)
        assert found
        return found[1]

    def bring(self, name: str, content: bytes) -> str:
        """The path of the draft that a file becomes."""
        answer = self.ask(
            "POST",
            "/data",
            params={"name": name},
            content=content,
            headers={"x-form-token": self.token(), "accept": "application/json"},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["href"])


@contextmanager
def signed_in(data: Path) -> Any:
    """A site that somebody has entered."""
    site = Site(data)
    assert site.sign_in().status_code == 303
    try:
        yield site
    finally:
        site.platform.close()
