"""Which language a text is in, for the question whether a file mixes them by accident."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

UNKNOWN: Final = "und"
_CHARACTERS: Final = 160
_MIN_LETTERS: Final = 24
"""Shorter texts are in no language that could be told."""
_CERTAIN: Final = 0.9
_KEPT_LINES: Final = 2000
"""Of each language in a file."""


def languages_of(texts: Sequence[str]) -> list[str]:
    """ISO 639-1 codes, `und` where a text is too short or the answer uncertain."""
    parts = [text[:_CHARACTERS] for text in texts]
    asked = [n for n, part in enumerate(parts) if _may_be_told(part)]
    found = [UNKNOWN] * len(parts)
    if asked:
        for number, language in zip(asked, _told([parts[n] for n in asked]), strict=True):
            found[number] = language
    return found


def _may_be_told(part: str) -> bool:
    return len(part) >= _MIN_LETTERS and sum(map(str.isalpha, part)) >= _MIN_LETTERS


def _told(parts: list[str]) -> list[str]:
    """The model of py3langid on many texts at once: its automaton walks all of them byte by byte,
    and its scores are sums over the features that it met (naive Bayes, log(1 + count) each)."""
    model = _model()
    encoded = [unicodedata.normalize("NFC", _lowered(part)).encode() for part in parts]
    lengths = np.array([len(text) for text in encoded])
    width = int(lengths.max())
    joined = b"".join(text.ljust(width, b"\0") for text in encoded)
    letters = np.frombuffer(joined, np.uint8).reshape(len(encoded), width)
    state = np.zeros(len(encoded), np.int64)
    met = np.full((len(encoded), width), -1, np.int64)
    for place in range(width):
        state = model.moves[model.rows[state] + letters[:, place]]
        met[:, place] = model.features[state]
    met[np.arange(width) >= lengths[:, None]] = -1
    scores = _scores(model, met) / np.sqrt(lengths)[:, None]
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    certain = shares[np.arange(len(best)), best] >= _CERTAIN
    return [
        model.codes[place] if sure else UNKNOWN
        for place, sure in zip(best.tolist(), certain.tolist(), strict=True)
    ]


def _lowered(part: str) -> str:
    return part.lower() if part.isupper() else part


def _scores(model: _Model, met: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[texts, languages] from the features met, -1 where there is none."""
    met.sort(axis=1)
    new = np.ones(met.shape, np.bool_)
    new[:, 1:] = met[:, 1:] != met[:, :-1]
    new &= met >= 0
    rows, places = np.nonzero(new)
    scores = np.tile(model.prior, (len(met), 1))
    if not len(rows):
        return scores
    # A run of equal features ends where the next begins, or where its row does.
    ends = np.append(places[1:], 0)
    last = np.append(rows[1:] != rows[:-1], True)
    counts = np.where(last, met.shape[1], ends) - places
    weights = np.log1p(counts).astype(np.float32)
    parts = model.table[met[rows, places]] * weights[:, None]
    firsts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    scores[rows[firsts]] += np.add.reduceat(parts, firsts, axis=0)
    return scores


@dataclass(frozen=True)
class _Model:
    moves: NDArray[np.int64]
    rows: NDArray[np.int64]
    features: NDArray[np.int64]
    table: NDArray[np.float32]
    prior: NDArray[np.float32]
    codes: list[str]


@functools.cache
def _model() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second to load

    whole = LanguageIdentifier.from_model_file(MODEL_FILE)
    codes = list(whole.nb_classes)
    columns = [codes.index(code) for code in _KNOWN]
    return _Model(
        moves=np.asarray(whole.tk_nextmove, dtype=np.int64),
        rows=np.asarray(whole.tk_row, dtype=np.int64) << 8,
        features=np.asarray(whole.tk_output, dtype=np.int64),
        table=np.ascontiguousarray(whole.nb_ptc[:, columns], dtype=np.float32),
        prior=np.asarray(whole.nb_pc, dtype=np.float32)[columns],
        codes=list(_KNOWN),
    )


_KNOWN: Final = (
    "en", "es", "pt", "fr", "de", "it", "nl", "ca", "gl", "eu", "pl", "cs", "sk", "ro", "hu",
    "sv", "da", "no", "fi", "tr", "el", "ru", "uk", "bg", "sr", "hr", "ar", "he", "fa", "hi",
    "bn", "th", "vi", "id", "zh", "ja", "ko",
)  # fmt: skip


class LanguageTally(msgspec.Struct):
    """Languages of answers in one file: the rows of rare ones are remembered while they are few."""

    counts: dict[str, int] = msgspec.field(default_factory=dict)
    lines: dict[str, list[int]] = msgspec.field(default_factory=dict)

    def add(self, lines: Sequence[int], languages: Sequence[str]) -> None:
        """Languages of some more rows."""
        for line, language in zip(lines, languages, strict=True):
            self._note(language, 1, (line,))

    def add_tally(self, later: LanguageTally) -> None:
        """Those of rows behind the ones that were seen so far."""
        for language, count in later.counts.items():
            self._note(language, count, later.lines[language])

    def _note(self, language: str, times: int, lines: Sequence[int]) -> None:
        self.counts[language] = self.counts.get(language, 0) + times
        kept = self.lines.setdefault(language, [])
        if len(kept) < _KEPT_LINES:
            kept.extend(lines[: _KEPT_LINES - len(kept)])

    def strangers(self, share: float) -> list[tuple[int, str, str]]:
        """(line, its language, the file's) of rows in languages that less than `share` of all rows
        are in, where most rows are in one."""
        known = {code: count for code, count in self.counts.items() if code != UNKNOWN}
        total = sum(known.values())
        if not total:
            return []
        main = max(known, key=lambda code: known[code])
        if known[main] < total / 2:
            return []
        rare = [code for code, count in known.items() if count < max(2, total * share)]
        return sorted((n, code, main) for code in rare if code != main for n in self.lines[code])
