"""Reads one file, or a training file and its validation file, and finds what rows say together.

One pass over the lines, then comparisons over an index on disk: memory does not grow with the
files. Lines that the structural rules would refuse are passed over. Findings hold lines and kinds,
never text.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from afina.data.content.compare import Comparison
from afina.data.content.habits import AnswerHabits
from afina.data.content.index import NO_ANSWER, RowIndex
from afina.data.content.languages import UNKNOWN, LanguageTally, languages_of
from afina.data.content.shingles import bands_of, plain
from afina.data.content.texts import RowTexts, all_texts, row_texts
from afina.data.kinds import RowKind, kind_of_file
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.personal.detect import find_personal
from afina.data.personal.spans import SECRETS, PersonalKind
from afina.data.rows import quick_value
from afina.data.rules.content_rules import CONTENT_RULES, ContentFacts
from afina.domain.findings import Finding

_BATCH: Final = 1000
_DEPTH: Final = 64
_RARE_LANGUAGE: Final = 0.05
_KIND_BITS: Final = {kind: place for place, kind in enumerate(PersonalKind)}
_BETWEEN: Final = "\n\0\n"
_SHORTEST: Final = 6
"""Characters that a text needs to hold something personal."""
_KEPT: Final = 1000
"""Lines kept a rule; all are counted."""


@dataclass(frozen=True)
class ContentReport:
    """Findings over what rows say together. Files are in the order in which they were given."""

    rows: int
    """Rows that could be looked at, in all files."""
    findings: tuple[Finding, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """Findings by rule, those left out of `findings` included."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Rows of the first file by their answers' language; `und`: too short or not certain."""
    complete: bool = True
    """False where so many rows looked alike that not all were compared."""


def check_content(
    training: Path,
    validation: Path | None = None,
    kinds: Sequence[RowKind] | None = None,
    progress: Callable[[int, int], None] | None = None,
    names: Sequence[str] | None = None,
) -> ContentReport:
    """The findings over one file or two. `names` stand in them instead of the paths' own; `kinds`
    are those that a job can use. `progress(bytes read, bytes in all)` is called now and then."""
    paths = [training] if validation is None else [training, validation]
    with tempfile.TemporaryDirectory(prefix="afina-content-") as folder:
        survey = _Survey(Path(folder), paths, kinds, progress)
        return survey.run(names or [path.name for path in paths])


@dataclass
class _File:
    """What one pass over a file found."""

    habits: AnswerHabits = field(default_factory=AnswerHabits)
    languages: LanguageTally = field(default_factory=LanguageTally)
    mixed: list[tuple[int, str, str]] = field(default_factory=list)
    same_language: int = 0
    personal_lines: array[int] = field(default_factory=lambda: array("q"))
    personal_kinds: array[int] = field(default_factory=lambda: array("L"))
    """A bit a kind, in the order of PersonalKind: twelve bytes a row, whatever the file."""

    def note_personal(self, line: int, kinds: set[PersonalKind]) -> None:
        self.personal_lines.append(line)
        self.personal_kinds.append(sum(1 << _KIND_BITS[kind] for kind in kinds))

    def secrets(self) -> Iterator[tuple[int, str]]:
        for line, kinds in self._personal():
            yield from ((line, kind.value) for kind in kinds if kind in SECRETS)

    def personal(self) -> Iterator[tuple[int, str]]:
        for line, kinds in self._personal():
            names = ", ".join(kind.value for kind in kinds if kind not in SECRETS)
            if names:
                yield line, names

    def _personal(self) -> Iterator[tuple[int, list[PersonalKind]]]:
        for line, bits in zip(self.personal_lines, self.personal_kinds, strict=True):
            yield line, [kind for kind, place in _KIND_BITS.items() if bits >> place & 1]


class _Survey:
    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        kinds: Sequence[RowKind] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._paths = paths
        self._kinds = tuple(kinds) if kinds is not None else None
        self._progress = progress
        self._index = RowIndex(folder)
        self._texts = (folder / "texts").open("w+b")
        self._offset = 0
        self._files: list[_File] = []
        self._done = 0
        self._total = sum(path.stat().st_size for path in paths)

    def run(self, names: Sequence[str]) -> ContentReport:
        try:
            for path in self._paths:
                self._read(path)
            self._index.close()
            self._texts.flush()
            with Comparison(self._index, self._texts.fileno()) as comparison:
                return self._report(comparison, names)
        finally:
            self._index.close()
            self._texts.close()

    def _read(self, path: Path) -> None:
        self._index.next_file()
        self._files.append(_File())
        kind: RowKind | None = None
        batch: list[tuple[int, bytes, dict[str, Any], RowTexts]] = []
        reader = LineReader(path, CheckLimits().max_line_bytes)
        for line in reader:
            if line.raw is None or line.is_blank:
                continue
            row = quick_value(line.raw, _DEPTH)
            if not isinstance(row, dict):
                continue
            kind = kind or kind_of_file(row, self._kinds)
            texts = row_texts(kind, row)
            if texts is not None:
                batch.append((line.number, line.raw, row, texts))
            if len(batch) >= _BATCH:
                self._take(batch)
                batch = []
                self._say(reader.bytes_read)
        self._take(batch)
        self._done += reader.bytes_total
        self._say(0)

    def _say(self, read: int) -> None:
        if self._progress is not None:
            self._progress(self._done + read, self._total)

    def _take(self, batch: list[tuple[int, bytes, dict[str, Any], RowTexts]]) -> None:
        if not batch:
            return
        lines = np.array([line for line, _, _, _ in batch], np.int64)
        texts = [texts for _, _, _, texts in batch]
        compared = [plain(text.both) for text in texts]
        sizes = np.array([len(text) for text in compared], np.int64)
        bands = bands_of(compared)
        self._index.add(
            {
                "line": lines,
                "offset": self._offset + np.cumsum(sizes) - sizes,
                "size": sizes,
                # hash() differs between processes, and these numbers live in one alone.
                "raw": np.array([hash(raw) for _, raw, _, _ in batch], np.int64),
                "context": np.array([hash(text.context) for text in texts], np.int64),
                "answer": np.array([_answer_hash(text.answer) for text in texts], np.int64),
                **{f"band{number}": bands[:, number] for number in range(bands.shape[1])},
            }
        )
        self._texts.write(b"".join(compared))
        self._offset += int(sizes.sum())
        self._look(batch)

    def _look(self, batch: list[tuple[int, bytes, dict[str, Any], RowTexts]]) -> None:
        """What can be said of each row alone: its languages, and what it should not hold."""
        file = self._files[-1]
        answers = [text.answer or "" for _, _, _, text in batch]
        answered = languages_of(answers)
        asked = languages_of([text.asked[-400:] for _, _, _, text in batch])
        file.languages.add(np.array([line for line, _, _, _ in batch], np.int64), answered)
        for (line, _, row, text), question, answer in zip(batch, asked, answered, strict=True):
            if text.answer is not None:
                file.habits.add(text.answer)
            if UNKNOWN not in (question, answer):
                if question == answer:
                    file.same_language += 1
                else:
                    file.mixed.append((line, question, answer))
            # All texts of a row at once; nothing is found across the sign between them.
            whole = _BETWEEN.join(one for one in all_texts(row) if len(one) >= _SHORTEST)
            found = {span.kind for span in find_personal(whole)}
            if found:
                file.note_personal(line, found)

    def _report(self, comparison: Comparison, names: Sequence[str]) -> ContentReport:
        findings: list[Finding] = []
        counts: Counter[str] = Counter()
        for number, (file, name) in enumerate(zip(self._files, names, strict=True)):
            facts = ContentFacts(
                near=comparison.near(number),
                contradictions=comparison.contradictions(number),
                leaks=comparison.leaks(number),
                strangers=file.languages.strangers(_RARE_LANGUAGE),
                mixed=_rare(file.mixed, file.same_language),
                secrets=file.secrets(),
                personal=file.personal(),
                habits=file.habits.facts(),
            )
            for rule in CONTENT_RULES:
                for fault in rule.find(facts):
                    counts[rule.code] += 1
                    if counts[rule.code] <= _KEPT:
                        findings.append(
                            Finding(
                                rule.code,
                                rule.severity,
                                fault.message,
                                rule.remedy,
                                name,
                                fault.line,
                            )
                        )
        languages = dict(self._files[0].languages.counts.most_common())
        return ContentReport(
            rows=self._index.rows,
            findings=tuple(findings),
            counts=dict(counts),
            languages=languages,
            complete=comparison.complete,
        )


def _answer_hash(answer: str | None) -> int:
    return NO_ANSWER if answer is None else hash(" ".join(answer.lower().split())) or 1


def _rare(mixed: Iterable[tuple[int, str, str]], same: int) -> list[tuple[int, str, str]]:
    """Rows that mix languages, where so few do that it looks like an accident."""
    found = list(mixed)
    return found if len(found) < same * _RARE_LANGUAGE else []
