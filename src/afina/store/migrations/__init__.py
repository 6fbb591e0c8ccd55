"""The schema's history. Each file under `versions` takes the one before it a step further; a test
holds their sum equal to `store.tables`."""

from __future__ import annotations

from typing import Final

<<<<<<< HEAD
HEAD: Final = "0008"
=======
HEAD: Final = "0009"
>>>>>>> 7ca5760 (The API answers evenly: writers take turns, the log is moved beside them, lists are read off indexes, stored JSON decodes four times faster)
"""The newest revision."""
