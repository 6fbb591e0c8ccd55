"""Following a job on a server until it ends: a live bar at a terminal, plain lines elsewhere.

The server may restart meanwhile: watching waits and goes on where it was. Ctrl-C leaves the job
alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from afina.cli.client import Client, segment
from afina.cli.progress import Progress, sparkline
from afina.cli.terminal import console, in_count, in_time, tell
from afina.domain.clock import SYSTEM_CLOCK
from afina.errors import AfinaError, Unavailable

_POLL_S: Final = 0.5
_AWAY_S: Final = 1.0
_PATIENCE_S: Final = 600.0
_PAGE: Final = 100
_TERMINAL: Final = {"succeeded", "failed", "cancelled"}


class Display(Protocol):
    """What shows a watched job."""

    def event(self, event: Mapping[str, Any], progress: Progress) -> None: ...

    def remark(self, text: str) -> None: ...


def watch_job(client: Client, job_id: str, as_json: bool = False) -> dict[str, Any]:
    """Show a job's events as they come and return the job once it has ended."""
    follower = _Follower(client, job_id)
    status = ""
    with _display(as_json) as display:
        while True:
            # The job is read before its events, so that none is missed after it ended.
            job = follower.job(display)
            follower.show_new(display)
            if job["status"] in _TERMINAL:
                return job
            if job["status"] == "paused" != status:
                display.remark(f"The job is paused. To go on with it: afina jobs resume {job_id}")
            status = job["status"]
            time.sleep(_POLL_S)


def conclude(job: Mapping[str, Any], state: str | None = None) -> None:
    """Say how a job ended, and what can be done with its model, which is in `state`; raises the
    job's own error if it did not succeed."""
    if job["status"] == "succeeded":
        name = job["fine_tuned_model"]
        after = f"Talk to it: afina chat {name}"
        if state == "held":
            after = (
                f"The model is held back and does not answer. Why: afina models card {name}. "
                f"To let it answer all the same: afina models release {name}"
            )
        count = in_count(job.get("trained_tokens"))
        tell(f"{job['id']} succeeded: {count} tokens trained. {after}")
        return
    fault = job.get("error") or {}
    raise AfinaError(
        f"{job['id']} {job['status']}{': ' if fault.get('message') else '.'}"
        f"{fault.get('message') or ''}",
        code=fault.get("code"),
    )


def state_of(client: Client, job: Mapping[str, Any]) -> str | None:
    """Where the model of a job that has ended stands; None where there is none any more."""
    if job["status"] != "succeeded":
        return None
    try:
        model = client.get(f"/v1/models/{segment(job['fine_tuned_model'])}")
    except AfinaError:
        return None
    return (model.get("afina") or {}).get("state")


class _Follower:
    """Reads a job's events in order, each once, over restarts of the server."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._path = f"/v1/fine_tuning/jobs/{job_id}"
        self._seen: set[str] = set()
        self._progress = Progress()

    def job(self, display: Display) -> dict[str, Any]:
        """The job; waits for a server that is away."""
        return self._patiently(self._path, display)

    def show_new(self, display: Display) -> None:
        """Show the events that came since the last time, oldest first."""
        fresh: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self._patiently(f"{self._path}/events", display, limit=_PAGE, after=after)
            new = [event for event in page["data"] if event["id"] not in self._seen]
            fresh += new
            if len(new) < len(page["data"]) or not page["has_more"]:
                break
            after = page["data"][-1]["id"]
        for event in reversed(fresh):
            self._seen.add(event["id"])
            self._progress.take(event, SYSTEM_CLOCK.monotonic())
            display.event(event, self._progress)

    def _patiently(self, path: str, display: Display, **query: str | int | None) -> dict[str, Any]:
        started: float | None = None
        while True:
            try:
                return self._client.get(path, **query)
            except Unavailable as error:
                now = SYSTEM_CLOCK.monotonic()
                if started is None:
                    started = now
                    display.remark("The server is away; the job is safe. Waiting for it …")
                if now - started > _PATIENCE_S:
                    raise error from None
                time.sleep(_AWAY_S)


class _JsonLines:
    """Every event as a line of JSON."""

    def event(self, event: Mapping[str, Any], progress: Progress) -> None:  # noqa: ARG002
        print(json.dumps(event, ensure_ascii=False), flush=True)

    def remark(self, text: str) -> None:
        tell(text)


class _Lines:
    """Messages as they are; of the steps, about one in ten."""

    def __init__(self) -> None:
        self._shown = 0

    def event(self, event: Mapping[str, Any], progress: Progress) -> None:
        if event.get("type") == "metrics":
            total = progress.total_steps
            stride = max(1, total // 10)
            if progress.step != total and 0 <= progress.step - self._shown < stride:
                return
            self._shown = progress.step
            left = progress.seconds_left
            remains = f", {in_time(left)} left" if left and progress.step < total else ""
            print(f"  {event['message']}{remains}  {sparkline(progress.losses)}", flush=True)
            return
        print(f"  {_plain(event)}", flush=True)

    def remark(self, text: str) -> None:
        tell(text)


class _Bar:
    """A bar at the bottom of a terminal, messages scrolling above it."""

    def __init__(self, live: Any, task: Any) -> None:
        self._live = live
        self._task = task

    def event(self, event: Mapping[str, Any], progress: Progress) -> None:
        if event.get("type") != "metrics":
            self._live.console.print(f"  {_plain(event)}", markup=False)
            return
        loss = progress.loss
        left = progress.seconds_left
        self._live.update(
            self._task,
            visible=True,
            completed=progress.step,
            total=progress.total_steps or None,
            loss="" if loss is None else f"loss {loss:.2f}",
            course=sparkline(progress.losses),
            left="" if left is None else f"{in_time(left)} left",
        )

    def remark(self, text: str) -> None:
        self._live.console.print(f"  {text}", markup=False)


def _plain(event: Mapping[str, Any]) -> str:
    level = event.get("level", "info")
    return event["message"] if level == "info" else f"{level}: {event['message']}"


@contextmanager
def _display(as_json: bool) -> Iterator[Display]:
    if as_json:
        yield _JsonLines()
        return
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Live

    live = Live(
        TextColumn("  step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[course]}", style="cyan"),
        TextColumn("{task.fields[left]}"),
        console=console(),
    )
    with live:
        task = live.add_task("", total=None, visible=False, loss="", course="", left="")
        yield _Bar(live, task)
