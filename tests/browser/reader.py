"""Somebody at a browser: signs in, clicks and counts the clicks, and notes what the console says."""

from __future__ import annotations

from typing import Any

from tests.live import LivePlatform, wait_until


class Reader:
    """One browser window."""

    def __init__(
        self,
        chromium: Any,
        platform: LivePlatform,
        language: str = "en",
        theme: str = "light",
        width: int = 1280,
        *,
        bypass_policy: bool = False,
    ) -> None:
        self.origin = f"http://127.0.0.1:{platform.port}"
        self._key = (platform.data / "api-key").read_text().strip()
        self._context = chromium.new_context(
            locale=language,
            color_scheme=theme,
            viewport={"width": width, "height": 860},
            bypass_csp=bypass_policy,
        )
        self.page = self._context.new_page()
        self.clicks = 0
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.hosts: set[str] = set()
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def __enter__(self) -> Reader:
        self.page.goto(f"{self.origin}/sign-in")
        self.page.fill("#key", self._key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{self.origin}/")
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def go(self, path: str) -> None:
        """Opens a page by its address."""
        self.page.goto(self.origin + path)

    def click(self, what: str) -> None:
        """One click, counted."""
        self.clicks += 1
        self.page.click(what)

    def wait(self, what: str, expression: str, patience_s: float = 60.0) -> None:
        """Until a script's expression is true. The browser's own way would evaluate a string in
        the page, which the page's policy forbids."""

        def is_so() -> bool:
            self.page.wait_for_timeout(50)
            return bool(self.page.evaluate(expression))

        wait_until(what, is_so, patience_s)

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"a dialog opened: {dialog.message}")
        dialog.dismiss()
