"""Moderation for api, worker and commands: scores of texts, from the backend that is set.

Answers are remembered by the hash of text and model, so that a text which was seen costs nothing
the next time. Nothing here is written to a log, and nothing is stored but scores.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from afina.data.moderation.categories import CATEGORIES, flagged
from afina.data.moderation.pieces import WINDOW_CHARACTERS, windows_of
from afina.errors import Unavailable
from afina.inside_settings import ModerationSettings
from afina.serving.network_client import NetworkClient
from afina.settings import Settings

LOCAL_NAME: Final = "afina-moderation-7"
AT_ONCE: Final = 64
_MARKS: Final = 2
"""Tokens that are put around a text."""
_REMEMBERED: Final = 50_000
_Seen = tuple[tuple[float, ...], int]


class Backend(Protocol):
    """Scores texts; `name` says which model does."""

    @property
    def name(self) -> str: ...

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        """Scores by category of each text, and its tokens."""
        ...


@dataclass(frozen=True)
class LocalBackend:
    """The model that comes with afina, in the engine."""

    client: NetworkClient
    name: str = LOCAL_NAME

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        """Raises Unavailable where the encoder is missing or no engine runs."""
        found = self.client.moderate(texts)
        return list(zip(found.scores, found.tokens, strict=True))


@dataclass(frozen=True)
class Verdict:
    """What moderation says of one text."""

    scores: tuple[float, ...]
    categories: Mapping[str, float]
    """Those at or above their thresholds, highest first."""
    tokens: int = 0
    """Of the text, as the model that judged counts them."""

    @property
    def is_flagged(self) -> bool:
        return bool(self.categories)


class Moderator:
    """Verdicts on texts. Any thread may ask."""

    def __init__(self, backend: Backend, thresholds: Mapping[str, float]) -> None:
        self._backend = backend
        self.thresholds = thresholds
        self._known: OrderedDict[bytes, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def model(self) -> str:
        """Which model judges."""
        return self._backend.name

    def verdicts(
        self, texts: Sequence[str], check: Callable[[], None] = lambda: None
    ) -> list[Verdict]:
        """One for each text, in order; a long text is judged window by window, all of it. `check`
        raises between two questions where no more is wanted. Raises what the backend says; what
        was judged by then is remembered."""
        split = [windows_of(_written(text)) for text in texts]
        keys = [[self._key(window) for window in windows] for windows in split]
        with self._lock:
            found = {k: self._known[k] for own in keys for k in own if k in self._known}
        asked = {
            key: window
            for own, windows in zip(keys, split, strict=True)
            for key, window in zip(own, windows, strict=True)
            if key not in found
        }
        for some in _batches(asked):
            check()
            judged = self._backend.judge(list(some.values()))
            fresh = {
                key: (tuple(row), tokens) for key, (row, tokens) in zip(some, judged, strict=True)
            }
            self._keep(fresh)
            found |= fresh
        self._keep({key: found[key] for own in keys for key in own})
        return [self._whole([found[key] for key in own]) for own in keys]

    def _whole(self, windows: Sequence[_Seen]) -> Verdict:
        """Of each category the highest score; the two marks of each further window are not of the
        text."""
        scores = tuple(max(column) for column in zip(*(row for row, _ in windows), strict=True))
        tokens = sum(count for _, count in windows) - _MARKS * (len(windows) - 1)
        return self._verdict(scores, tokens)

    def together(self, verdicts: Sequence[Verdict]) -> Verdict:
        """One verdict on the parts of one input: of each category the highest score."""
        scores = tuple(max(column) for column in zip(*(v.scores for v in verdicts), strict=True))
        return self._verdict(scores, sum(verdict.tokens for verdict in verdicts))

    def _verdict(self, scores: tuple[float, ...], tokens: int) -> Verdict:
        return Verdict(scores, flagged(scores, self.thresholds), tokens)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._backend.name}\0{text}".encode()).digest()

    def _keep(self, found: Mapping[bytes, _Seen]) -> None:
        with self._lock:
            for key, seen in found.items():
                self._known[key] = seen
                self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _written(text: str) -> str:
    """A text that can be sent: half of a surrogate pair, which no encoding holds, as `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _batches(asked: Mapping[bytes, str]) -> Iterator[dict[bytes, str]]:
    """Texts that are asked about together: so many, and hardly longer than one window."""
    some: dict[bytes, str] = {}
    characters = 0
    for key, text in asked.items():
        if some and (len(some) >= AT_ONCE or characters + len(text) > WINDOW_CHARACTERS):
            yield some
            some, characters = {}, 0
        some[key] = text
        characters += len(text)
    if some:
        yield some


def moderator_of(settings: Settings) -> Moderator:
    """The moderator that is set. Raises Unavailable where moderation is off."""
    return Moderator(_backend(settings), settings.moderation.thresholds)


def _backend(settings: Settings) -> Backend:
    chosen: ModerationSettings = settings.moderation
    if chosen.backend == "off":
        raise Unavailable(
            "Moderation is off on this server.",
            code="moderation_off",
            remedy="Set moderation.backend to local or endpoint.",
        )
    if chosen.backend == "endpoint":
        from afina.service.moderation_endpoint import EndpointBackend

        return EndpointBackend.of(chosen)
    return LocalBackend(NetworkClient(settings.engine_socket))


def category_flags(verdict: Verdict) -> dict[str, bool]:
    """Every category and whether it is flagged."""
    return {name: name in verdict.categories for name in CATEGORIES}
