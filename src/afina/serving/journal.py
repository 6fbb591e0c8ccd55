"""The usage journal: a line a request, appended before the request's final line is sent.

One write system call a record in append mode, so a record is whole or absent even if the engine
is killed; the worker drains the file and the store counts each request id once.
"""

from __future__ import annotations

import os
from pathlib import Path

from afina.serving.protocol import UsageRecord, encode_line


class Journal:
    """An append-only file of UsageRecord lines. The folder is made if need be."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file: int | None = None
        self._inode = 0

    def append(self, record: UsageRecord) -> None:
        """Writes one record through to the operating system."""
        os.write(self._open(), encode_line(record))

    def close(self) -> None:
        """Closes the file; a later append opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        # The drain may have renamed the file away since the last record: follow the path.
        if self._file is not None:
            try:
                if self._path.stat().st_ino == self._inode:
                    return self._file
            except FileNotFoundError:
                pass
            self.close()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._inode = os.fstat(self._file).st_ino
        return self._file
