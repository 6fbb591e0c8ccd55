"""Live news of jobs as server-sent events. One look at the store serves all who watch a job.

Each message has the place in the job's events as its id, so a browser that comes back after the
server was restarted says where it was and misses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import structlog
from anyio import to_thread

from afina.domain.accounts import Caller
from afina.errors import AfinaError
from afina.language.strings import Texts
from afina.service.job_feed import News, news_of
from afina.service.platform import Platform
from afina.web.sayings import heard

POLL_S: Final = 0.5
BEAT_S: Final = 15.0
LIFE_S: Final = 600.0
"""A stream ends after this, and the browser opens another: a session that is over then shows."""
_REMEMBERED: Final = 64
_LOG = structlog.get_logger(__name__)
_METRICS: Final = (
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def state(news: News) -> dict[str, Any]:
    """What of a job changes while it goes on."""
    job = news.job
    return {
        "status": job.status.value,
        "stage": job.stage,
        "wish": None if job.wish is None else job.wish.value,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "estimated_finish": job.estimated_finish,
        "trained_tokens": job.trained_tokens,
        "model": job.fine_tuned_model,
        "error": None if job.error is None else job.error.message,
        "over": job.status.is_terminal,
        "share": None if news.share is None else round(news.share, 2),
    }


def point(data: Mapping[str, Any]) -> list[Any]:
    """A step's numbers: the step, how many there are, then loss and accuracy of each kind."""
    numbers = (data.get(name) for name in _METRICS)
    return [data.get("step"), data.get("total_steps"), *numbers]


def told(news: News, texts: Texts) -> bytes:
    """News as one server-sent event, in a reader's language."""
    body = {
        "job": state(news),
        "points": [point(event.data) for event in news.events if event.type == "metrics"],
        "events": [
            [event.created_at, event.level, said.text, said.language]
            for event in news.events
            if event.type != "metrics"
            for said in (heard(texts, event),)
        ],
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"id: {news.end}\ndata: {text}\n\n".encode()


class _Watch:
    """One job that somebody watches, in one language."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.followers = 0
        self.place = 0
        self.version = 0
        self.seen: dict[str, Any] = {}
        self.parts: deque[tuple[int, int, int, bytes]] = deque(maxlen=_REMEMBERED)
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class LiveJobs:
    """All watched jobs of this process."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._leaving = False

    def leave(self) -> None:
        """Ends every stream: the server stops, and browsers come back to the next one."""
        self._leaving = True
        for watch in self._watches.values():
            watch.changed.set()

    async def follow(
        self, platform: Platform, caller: Caller, job_id: str, after: int, texts: Texts
    ) -> AsyncIterator[bytes]:
        """Messages from `after` on, until the job is over and said so. Raises NotFound at once."""
        news = await to_thread.run_sync(news_of, platform, caller, job_id, after)
        clock, ends = platform.clock, platform.clock.monotonic() + LIFE_S
        yield b"retry: 1000\n\n" + told(news, texts)
        place, over = news.end, news.job.status.is_terminal and not news.is_more
        watch = self._join(platform, caller, news, texts)
        version = watch.version if place == watch.place else -1
        try:
            while not over and not self._leaving and clock.monotonic() < ends:
                changed = watch.changed
                if version == watch.version:
                    try:
                        await asyncio.wait_for(changed.wait(), BEAT_S)
                    except TimeoutError:
                        yield b": beat\n\n"
                    continue
                parts = [part for part in watch.parts if part[0] > version]
                if not news.is_more and parts and parts[0][1] == place and version >= 0:
                    for version, _, place, message in parts:  # noqa: B007 - they go on
                        yield message
                    over = bool(watch.seen["over"])
                else:
                    version = watch.version
                    news = await to_thread.run_sync(news_of, platform, caller, job_id, place)
                    place, over = news.end, news.job.status.is_terminal and not news.is_more
                    version = -1 if news.is_more else version
                    yield told(news, texts)
        finally:
            self._leave((job_id, texts.language), watch)

    def _join(self, platform: Platform, caller: Caller, news: News, texts: Texts) -> _Watch:
        job_id = news.job.id
        watch = self._watches.get((job_id, texts.language))
        if watch is None:
            watch = self._watches[job_id, texts.language] = _Watch(texts)
            watch.place, watch.seen = news.end, state(news)
            watch.task = asyncio.create_task(self._poll(platform, caller, job_id, watch))
        watch.followers += 1
        return watch

    def _leave(self, key: tuple[str, str], watch: _Watch) -> None:
        watch.followers -= 1
        if watch.followers == 0:
            if self._watches.get(key) is watch:
                del self._watches[key]
            if watch.task is not None:
                watch.task.cancel()

    async def _poll(self, platform: Platform, caller: Caller, job_id: str, watch: _Watch) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                news = await to_thread.run_sync(news_of, platform, caller, job_id, watch.place)
            except AfinaError as error:  # a busy store, or a job that was deleted
                _LOG.info("watch.waits", job=job_id, reason=error.code)
                continue
            now = state(news)
            if news.end == watch.place and now == watch.seen:
                continue
            watch.version += 1
            watch.parts.append((watch.version, watch.place, news.end, told(news, watch.texts)))
            watch.place, watch.seen = news.end, now
            changed, watch.changed = watch.changed, asyncio.Event()
            changed.set()
