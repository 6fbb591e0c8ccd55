"""From tokens to what a client is told: text, stop strings, ends, log-probabilities, counts.

One object a request, fed by the engine's step thread, answer by answer. No torch, no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from afina.serving.protocol import (
    Delta,
    Final,
    Generate,
    Score,
    Scored,
    TokenLogprob,
    TopLogprob,
)
from afina.serving.stops import StopFilter
from afina.text.detokenizer import Detokenizer
from afina.text.tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Candidates:
    """Log-probabilities at one position: the chosen token's, and the best ids with theirs."""

    chosen: float
    ids: list[int]
    logprobs: list[float]


class Answer(Protocol):
    """What a request's tokens become."""

    @property
    def completion_tokens(self) -> int:
        """Tokens computed so far, over all choices."""
        ...

    def take(self, choice: int, token: int, candidates: Candidates | None) -> Delta | None:
        """One more token. A delta with `finish` ends the choice."""
        ...

    def final(self) -> Final | Scored:
        """The last line, once every choice has ended."""
        ...


class GeneratedAnswer:
    """The answer to a Generate: deltas of text."""

    def __init__(self, request: Generate, tokenizer: ChatTokenizer) -> None:
        self._request = request
        self._choices = [_Choice(request, tokenizer) for _ in range(request.n)]
        self.completion_tokens = 0

    def take(self, choice: int, token: int, candidates: Candidates | None) -> Delta | None:
        """One more token. A delta with `finish` ends the choice."""
        self.completion_tokens += 1
        delta = self._choices[choice].take(token, candidates)
        if delta is not None:
            delta.choice = choice
        return delta

    def end(self, choice: int) -> Delta:
        """Ends a choice that ended by itself, though not with one of its end tokens."""
        delta = self._choices[choice].stop()
        delta.choice = choice
        return delta

    def final(self) -> Final:
        """The counts."""
        return Final(len(self._request.prompt), 0, self.completion_tokens)


class ScoredAnswer:
    """The answer to a Score: nothing until all forced ids are through."""

    def __init__(self, request: Score, precision: str) -> None:
        self._request = request
        self._scored = Scored([], [], [], precision)
        self.completion_tokens = 0

    def take(self, choice: int, token: int, candidates: Candidates | None) -> Delta | None:  # noqa: ARG002
        """One more forced id."""
        if candidates is None:
            raise ValueError("scoring needs candidates")
        self.completion_tokens += 1
        self._scored.logprobs.append(candidates.chosen)
        self._scored.top_ids.append(candidates.ids)
        self._scored.top_logprobs.append(candidates.logprobs)
        ended = self.completion_tokens == len(self._request.ids)
        return Delta(finish="length") if ended else None

    def final(self) -> Scored:
        """The scores."""
        return self._scored


@dataclass
class _Pending:
    """Tokens whose text is held back, and where in the answer's text each begins."""

    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def keep_before(self, end: int) -> None:
        kept = sum(start < end for start in self.starts)
        del self.ids[kept:], self.starts[kept:], self.logprobs[kept:]


class _Choice:
    """One answer's text on its way out."""

    def __init__(self, request: Generate, tokenizer: ChatTokenizer) -> None:
        self._request = request
        self._token_bytes: Callable[[int], bytes] = tokenizer.token_bytes
        self._detokenizer = Detokenizer(tokenizer, frozenset(request.visible))
        self._filter = StopFilter(request.stop)
        self._pending = _Pending()
        self._tokens = 0
        self._seen = 0
        """Characters that came out of the detokenizer."""
        self._shown = 0
        """Characters that were sent."""

    def take(self, token: int, candidates: Candidates | None) -> Delta | None:
        self._tokens += 1
        if token in self._request.end_tokens:
            return self._end("stop", self._rest())
        text = self._detokenizer.push(token)
        self._pending.ids.append(token)
        self._pending.starts.append(self._seen)
        if candidates is not None:
            self._pending.logprobs.append(self._told(token, candidates))
        self._seen += len(text)
        shown = self._filter.push(text)
        if self._filter.stopped:
            return self._end("stop", shown)
        if self._tokens >= self._request.max_tokens:
            shown += self._rest()
            return self._end("stop" if self._filter.stopped else "length", shown)
        return self._delta(shown, None) if shown else None

    def stop(self) -> Delta:
        return self._end("stop", self._rest())

    def _rest(self) -> str:
        """What was held back, now that nothing can follow."""
        return self._filter.push(self._detokenizer.finish()) + self._filter.finish()

    def _end(self, finish: str, shown: str) -> Delta:
        if self._filter.stopped:
            self._pending.keep_before(self._shown + len(shown))
        return self._delta(shown, finish)

    def _delta(self, shown: str, finish: str | None) -> Delta:
        self._shown += len(shown)
        pending, self._pending = self._pending, _Pending()
        return Delta(ids=pending.ids, text=shown, logprobs=pending.logprobs, finish=finish)

    def _told(self, token: int, candidates: Candidates) -> TokenLogprob:
        top = [
            TopLogprob(id, self._latin(id), logprob)
            for id, logprob in zip(candidates.ids, candidates.logprobs, strict=True)
        ]
        return TokenLogprob(token, self._latin(token), candidates.chosen, top)

    def _latin(self, token: int) -> str:
        return self._token_bytes(token).decode("latin-1")
