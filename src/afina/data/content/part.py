"""One part of a file as numbers: what is needed to compare its rows with all others, and what can
be said of each row alone (its languages, what it should not hold)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from afina.data.beside import Work
from afina.data.chunks import Chunk
from afina.data.content.habits import AnswerHabits
from afina.data.content.index import BAND_COLUMNS, COLUMNS, NO_ANSWER
from afina.data.content.languages import UNKNOWN, LanguageTally, languages_of
from afina.data.content.shingles import bands_of, plain
from afina.data.content.texts import RowTexts, all_texts, row_texts
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.personal.detect import find_personal
from afina.data.personal.spans import PersonalKind
from afina.data.rows import quick_value

MAX_DEPTH: Final = 64
KIND_BITS: Final = {kind: place for place, kind in enumerate(PersonalKind)}
_BATCH: Final = 1000
_BETWEEN: Final = "\n\0\n"
_SHORTEST: Final = 6
"""Characters that a text needs to hold something personal."""
_ASKED: Final = 400
"""Of a question, from its end, in which its language is looked for."""

_Row = tuple[int, bytes, dict[str, Any], RowTexts]


class SurveySetup(msgspec.Struct, frozen=True):
    """What is looked at."""

    path: str
    kind: RowKind | None


class SurveyPart(msgspec.Struct):
    """What one pass over a part found."""

    columns: dict[str, bytes] = msgspec.field(default_factory=dict)
    """The index's columns, but for the offsets of texts in the whole."""
    texts: bytes = b""
    habits: AnswerHabits = msgspec.field(default_factory=AnswerHabits)
    languages: LanguageTally = msgspec.field(default_factory=LanguageTally)
    mixed: list[tuple[int, str, str]] = msgspec.field(default_factory=list)
    same_language: int = 0
    personal: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(line, a bit a kind in the order of PersonalKind)."""


def begin_survey(setup: SurveySetup) -> Callable[[Chunk], SurveyPart]:
    """A function that looks at a part."""
    return lambda chunk: _Survey(setup).run(chunk)


WORK: Final = Work(__name__, SurveySetup, SurveyPart, begin_survey)


class _Survey:
    def __init__(self, setup: SurveySetup) -> None:
        self._setup = setup
        self._part = SurveyPart()
        self._columns: dict[str, list[bytes]] = {name: [] for name in COLUMNS}
        self._texts: list[bytes] = []

    def run(self, chunk: Chunk) -> SurveyPart:
        batch: list[_Row] = []
        if self._setup.kind is not None:
            for line in chunk.lines(Path(self._setup.path), CheckLimits().max_line_bytes):
                if line.raw is None or line.is_blank:
                    continue
                row = quick_value(line.raw, MAX_DEPTH)
                if not isinstance(row, dict):
                    continue
                texts = row_texts(self._setup.kind, row)
                if texts is not None:
                    batch.append((line.number, line.raw, row, texts))
                if len(batch) >= _BATCH:
                    self._take(batch)
                    batch = []
        self._take(batch)
        self._part.columns = {name: b"".join(parts) for name, parts in self._columns.items()}
        self._part.texts = b"".join(self._texts)
        return self._part

    def _take(self, batch: list[_Row]) -> None:
        if not batch:
            return
        texts = [texts for _, _, _, texts in batch]
        compared = [plain(text.both) for text in texts]
        bands = bands_of(compared)
        columns: dict[str, Any] = {
            "line": [line for line, _, _, _ in batch],
            "size": [len(text) for text in compared],
            "raw": [_number(raw) for _, raw, _, _ in batch],
            "context": [_hash(text.context) for text in texts],
            "answer": [_answer_hash(text.answer) for text in texts],
            **{name: bands[:, number] for number, name in enumerate(BAND_COLUMNS)},
        }
        for name, values in columns.items():
            self._columns[name].append(np.array(values, dtype=COLUMNS[name]).tobytes())
        self._texts += compared
        self._look(batch)

    def _look(self, batch: list[_Row]) -> None:
        """What can be said of each row alone."""
        part = self._part
        answered = languages_of([text.answer or "" for _, _, _, text in batch])
        asked = languages_of([text.asked[-_ASKED:] for _, _, _, text in batch])
        part.languages.add([line for line, _, _, _ in batch], answered)
        for (line, _, row, text), question, answer in zip(batch, asked, answered, strict=True):
            if text.answer is not None:
                part.habits.add(text.answer)
            if UNKNOWN not in (question, answer):
                if question == answer:
                    part.same_language += 1
                else:
                    part.mixed.append((line, question, answer))
            # All texts of a row at once; nothing is found across the sign between them.
            whole = _BETWEEN.join([one for one in all_texts(row) if len(one) >= _SHORTEST])
            spans = find_personal(whole)
            if spans:
                bits = sum(1 << KIND_BITS[kind] for kind in {span.kind for span in spans})
                part.personal.append((line, bits))


def _number(raw: bytes) -> int:
    """A hash that is the same in every process, as the index keeps it."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little", signed=True)


def _hash(text: str) -> int:
    return _number(text.encode("utf-8", "surrogatepass"))


def _answer_hash(answer: str | None) -> int:
    return NO_ANSWER if answer is None else _hash(" ".join(answer.lower().split())) or 1
