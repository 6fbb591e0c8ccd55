"""A progress bar with a true end, for work on files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from afina.cli.terminal import console


@contextmanager
def file_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function of what is done and what there is, shown as a bar on a terminal's standard error;
    nothing elsewhere. A total of 0 is one that is not known."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as live:
        task = live.add_task(title, total=None)
        yield lambda done, total: live.update(task, completed=done, total=total or None)
