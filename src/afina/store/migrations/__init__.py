"""The schema's history. Each file under `versions` takes the one before it a step further; a test
holds their sum equal to `store.tables`."""

from __future__ import annotations

from typing import Final

HEAD: Final = "0013"
"""The newest revision."""
