"""Room on the disk: what is refused when the data directory's budget is spent."""

from __future__ import annotations

import shutil

from afina.errors import StorageFull
from afina.service.platform import Platform

_REMEDY = (
    "`afina disk show` says what holds it and `afina disk clean` makes room on the server; or "
    "delete files and models, or raise disk.max_bytes."
)


def shortage(platform: Platform, coming_bytes: int = 0) -> StorageFull | None:
    """Why so many more bytes have no room, or None."""
    given, data = platform.settings.disk, platform.settings.data
    if given.max_bytes is not None:
        used = platform.meter.used(data, platform.clock.monotonic())
        if used + coming_bytes > given.max_bytes:
            return StorageFull(
                f"The server has no room for this: its data directory holds {_mb(used)} of at most "
                f"{_mb(given.max_bytes)}, and {_mb(coming_bytes)} would come.",
                remedy=_REMEDY,
            )
    free = shutil.disk_usage(data).free
    if free - coming_bytes < given.min_free_bytes:
        return StorageFull(
            f"The server has no room for this: {_mb(free)} of its disk are free, and "
            f"{_mb(given.min_free_bytes)} must stay so.",
            code="disk_full",
            remedy=_REMEDY.replace("raise disk.max_bytes", "lower disk.min_free_bytes"),
        )
    return None


def check_room(platform: Platform, coming_bytes: int = 0) -> None:
    """Raises StorageFull where so many more bytes have no room; counts them where they have."""
    error = shortage(platform, coming_bytes)
    if error is not None:
        raise error
    platform.meter.promise(coming_bytes)


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
