"""Every text of the dashboard, in every language, from one file: `strings.toml`.

A text is a list with one entry a language, in the order of `LANGUAGES`, so none can be missing.
`one|many` holds two forms, and `n` chooses. `{name}` is filled in.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from afina.domain.sayings import form_for

LANGUAGES: Final = ("en", "es", "pt")
NAMES: Final = {"en": "English", "es": "Español", "pt": "Português"}
_FILE: Final = Path(__file__).parent / "strings.toml"


@functools.cache
def table() -> Mapping[str, tuple[str, ...]]:
    """All texts by `section.name`. Raises ValueError for one that is not in every language."""
    found: dict[str, tuple[str, ...]] = {}
    for section, texts in tomllib.loads(_FILE.read_text("utf-8")).items():
        for name, forms in texts.items():
            key = f"{section}.{name}"
            if len(forms) != len(LANGUAGES) or not all(forms):
                raise ValueError(f"{key} is not in every language")
            found[key] = tuple(forms)
    return found


class Texts:
    """The texts of one language; a call gives one of them."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else LANGUAGES[0]
        self._place = LANGUAGES.index(self.language)

    def __call__(self, key: str, **values: Any) -> str:
        """The text `key` with `values` filled in. Raises KeyError for a text that is not there."""
        text = form_for(table()[key][self._place], values.get("n"))
        return text.format(**values) if values else text

    def has(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in table()

    def section(self, name: str) -> dict[str, str]:
        """All texts of a section, for a script."""
        start = f"{name}."
        return {
            key.removeprefix(start): forms[self._place]
            for key, forms in table().items()
            if key.startswith(start)
        }


def chosen_language(cookie: str | None, accepted: str | None) -> str:
    """The reader's language: what was chosen, else the first of the browser's that is here."""
    if cookie in LANGUAGES:
        return str(cookie)
    for part in (accepted or "").split(","):
        language = part.partition(";")[0].strip().partition("-")[0].lower()
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]
