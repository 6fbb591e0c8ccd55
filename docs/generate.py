"""Writes the pages that are made from the program: `make docs`. A test compares them."""

from __future__ import annotations

from pathlib import Path

import conformance

from afina.cli.reference import reference
from afina.data.rules.pages import catalogue

HERE = Path(__file__).parent


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {HERE / "cli.md": reference(), HERE / "rules.md": catalogue()}


def main() -> None:
    """Write them all."""
    for path, text in pages().items():
        path.write_text(text)
    conformance.PAGE.write_text(conformance.page())


if __name__ == "__main__":
    main()
