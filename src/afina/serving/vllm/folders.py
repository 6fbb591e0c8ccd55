"""Adapters as files for vLLM: a folder each, named by the tune's hash, made from verified bytes.

Nothing of an adapter goes out as it came. Its configuration is written anew from the few settings
that afina knows, and its weights from the matrices that were read: no setting that names code, no
foreign file, no note in the header is left. No torch here; whoever reads the bytes needs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

Read = Callable[[str, str], Mapping[str, bytes]]
"""From a base's id and a manifest's hash to the files of its adapter, by name, checked and bare."""


class AdapterFolders:
    """The folder of folders. `there`: the same, as vLLM sees it."""

    def __init__(self, root: Path, there: str | None, read: Read) -> None:
        self._root = root
        self._there = str(root) if there is None else there.rstrip("/")
        self._read = read

    def make(self, base_id: str, sha256: str) -> str:
        """Writes an adapter; its path as vLLM sees it. Takes milliseconds. Raises what reading it
        raises: unknown, damaged, of another base, of a kind that vLLM cannot serve."""
        files = self._read(base_id, sha256)
        folder = self._root / sha256
        if folder.exists():
            shutil.rmtree(folder)
        fresh = folder.with_name(f".{sha256}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, raw in files.items():
            with (fresh / name).open("xb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        fresh.rename(folder)
        return self.path(sha256)

    def path(self, sha256: str) -> str:
        """Where an adapter lies, as vLLM sees it."""
        return f"{self._there}/{sha256}"

    def is_ours(self, path: str | None) -> bool:
        """Whether a path that vLLM tells lies here."""
        return path is not None and path.startswith(f"{self._there}/")

    def remove(self, sha256: str) -> None:
        """Takes an adapter's files away."""
        shutil.rmtree(self._root / sha256, ignore_errors=True)

    def clear(self) -> None:
        """Takes away what an earlier engine left."""
        shutil.rmtree(self._root, ignore_errors=True)
