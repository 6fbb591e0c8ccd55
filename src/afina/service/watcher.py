"""Looks at what passes: a queue of texts, judged by a thread of its own while answers go on.

The thread starts with the first text. What waits is in memory alone; where more waits than
`MOST_WAITING`, or nobody can judge, texts are counted as unseen, and nothing is kept back.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from afina.domain.watch import FLAGGED, LOOKED_AT, MASKED, UNSEEN, Watched
from afina.errors import AfinaError
from afina.service.moderation import Moderator, moderator_of
from afina.service.platform import Platform
from afina.service.watch import check_allowed, count

MOST_WAITING: Final = 2048
MOST_CHARACTERS: Final = 32_000
"""Of one text; the end of a longer one is not looked at."""
AT_ONCE: Final = 32
_KNOWN_S: Final = 1.0
_KNOWN_MOST: Final = 4096
_HEARD_MOST: Final = 20_000
log = structlog.get_logger()


@dataclass
class _Seen:
    who: Watched
    text: str | None
    counts: Counter[str] = field(default_factory=Counter)


class Watcher:
    """Counts what keys ask and are answered. Any thread may call it."""

    def __init__(
        self,
        platform: Platform,
        judge: Callable[[], Moderator] | None = None,
        *,
        starts: bool = True,
    ) -> None:
        """Without `starts` nothing is judged but by `work`."""
        self._platform = platform
        self._starts = starts
        self._judge = judge or (lambda: moderator_of(platform.settings))
        self._waiting: queue.Queue[_Seen] = queue.Queue(MOST_WAITING)
        self._lost: Counter[Watched] = Counter()
        self._allowed: dict[Watched, float] = {}
        self._heard: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def check(self, who: Watched) -> None:
        """Raises Forbidden where the key was stopped; known for a second."""
        now = self._platform.clock.monotonic()
        if now - self._allowed.get(who, -_KNOWN_S) < _KNOWN_S:
            return
        check_allowed(self._platform, who)
        if len(self._allowed) >= _KNOWN_MOST:
            self._allowed.clear()
        self._allowed[who] = now

    def saw(
        self, who: Watched, texts: Sequence[str], earlier: Sequence[str] = (), masked: int = 0
    ) -> None:
        """Takes texts to be judged; never waits. A text of `earlier` counts only where the same
        key has not said or heard it before: a history may be made up."""
        for old in earlier:
            if old.strip() and not self._is_known(who, old):
                self._put(_Seen(who, old[:MOST_CHARACTERS]))
        for text in texts:
            if text.strip():
                self._is_known(who, text)
                self._put(_Seen(who, text[:MOST_CHARACTERS]))
        if masked:
            self._put(_Seen(who, None, Counter({MASKED: masked})))

    def work(self, first: _Seen | None = None) -> int:
        """Judges and counts what waits, after `first`; says how many texts. For the thread, and
        for tests."""
        some = [] if first is None else [first]
        while len(some) < AT_ONCE:
            try:
                some.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        with self._lock:
            lost, self._lost = self._lost, Counter()
        self._judged([seen for seen in some if seen.text is not None])
        tally: dict[Watched, Counter[str]] = {}
        for seen in some:
            tally.setdefault(seen.who, Counter()).update(seen.counts)
        for who, unseen in lost.items():
            tally.setdefault(who, Counter())[UNSEEN] += unseen
        for who, counts in tally.items():
            if count(self._platform, who, counts) is not None:
                self._allowed.clear()
        return len(some)

    def _is_known(self, who: Watched, text: str) -> bool:
        """Whether the key has said or heard it lately; from now on it has."""
        words = f"{who.project_id}\0{who.key_id}\0{who.model}\0{text.strip()}"
        digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        with self._lock:
            known = digest in self._heard
            self._heard[digest] = None
            self._heard.move_to_end(digest)
            if len(self._heard) > _HEARD_MOST:
                self._heard.popitem(last=False)
        return known

    def _judged(self, some: Sequence[_Seen]) -> None:
        if not some:
            return
        try:
            verdicts = self._judge().verdicts([seen.text or "" for seen in some])
        except AfinaError as error:
            log.warning("watch.unseen", texts=len(some), reason=error.code or error.kind)
            for seen in some:
                seen.counts[UNSEEN] += 1
            return
        for seen, verdict in zip(some, verdicts, strict=True):
            seen.counts[LOOKED_AT] += 1
            if verdict.is_flagged:
                seen.counts.update([FLAGGED, *verdict.categories])

    def _put(self, seen: _Seen) -> None:
        try:
            self._waiting.put_nowait(seen)
        except queue.Full:
            with self._lock:
                self._lost[seen.who] += 1
            return
        if self._starts and self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            first = self._waiting.get()
            try:
                self.work(first)
            except Exception as error:  # noqa: BLE001 - the watch must outlive a fault
                log.error("watch.failed", exception=type(error).__name__)
