"""Reads one file, or a training file and its validation file, and finds what rows say together.

One pass over the lines, by several processes where a file is large, then comparisons over an index
on disk: memory does not grow with the files. Lines that the structural rules would refuse are
passed over. Findings hold lines and kinds, never text.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from afina.data.beside import processes_for, run_chunks
from afina.data.chunks import chunks_of
from afina.data.content.compare import Comparison
from afina.data.content.habits import AnswerHabits
from afina.data.content.index import RowIndex
from afina.data.content.languages import LanguageTally
from afina.data.content.part import KIND_BITS, MAX_DEPTH, WORK, SurveyPart, SurveySetup
from afina.data.kinds import RowKind, kind_of_file
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.personal.spans import SECRETS
from afina.data.rows import quick_value
from afina.data.rules.content_rules import CONTENT_RULES, ContentFacts
from afina.domain.findings import Finding

_RARE_LANGUAGE: Final = 0.05
_KEPT: Final = 1000
"""Lines kept a rule; all are counted."""
_WORTH_BYTES: Final = 10 << 20
"""From so many bytes on several processes are faster than one."""
_COMPARING: Final = 8
"""Reading takes about so many times as long as comparing, for the bar."""


@dataclass(frozen=True)
class ContentReport:
    """Findings over what rows say together. Files are in the order in which they were given."""

    rows: int
    """Rows that could be looked at, in all files."""
    findings: tuple[Finding, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """Findings by rule, those left out of `findings` included."""
    by_file: tuple[Mapping[str, int], ...] = ()
    """The same by file."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Rows of the first file by their answers' language; `und`: too short or not certain."""
    complete: bool = True
    """False where so many rows looked alike that not all were compared."""


def check_content(
    *paths: Path,
    kinds: Sequence[RowKind] | None = None,
    progress: Callable[[int, int], None] | None = None,
    names: Sequence[str] | None = None,
    processes: int | None = None,
    scratch: Path | None = None,
) -> ContentReport:
    """The findings over one file, or over a training file and its validation file. `names` stand in
    them instead of the paths' own; `kinds` are those that a job can use. `progress(done, all)` is
    called now and then. Large files are read by several `processes` (None: as many as are worth
    their start); the report is the same. The index lies under `scratch` (None: where temporary
    files lie) for as long as it takes."""
    with tempfile.TemporaryDirectory(prefix="afina-content-", dir=scratch) as folder:
        survey = _Survey(Path(folder), paths, progress)
        return survey.run(names or [path.name for path in paths], kinds, processes)


@dataclass
class _File:
    """What one pass over a file found: of each rule the first lines, and counts of all."""

    habits: AnswerHabits = field(default_factory=AnswerHabits)
    languages: LanguageTally = field(default_factory=LanguageTally)
    mixed: list[tuple[int, str, str]] = field(default_factory=list)
    mixed_count: int = 0
    same_language: int = 0
    secrets: list[tuple[int, str]] = field(default_factory=list)
    secrets_count: int = 0
    personal: list[tuple[int, str]] = field(default_factory=list)
    personal_count: int = 0

    def add(self, part: SurveyPart) -> None:
        """The next part of the file."""
        self.habits.add_habits(part.habits)
        self.languages.add_tally(part.languages)
        self.mixed += part.mixed[: _KEPT - len(self.mixed)]
        self.mixed_count += len(part.mixed)
        self.same_language += part.same_language
        for line, bits in part.personal:
            kinds = [kind for kind, place in KIND_BITS.items() if bits >> place & 1]
            secrets = [(line, kind.value) for kind in kinds if kind in SECRETS]
            self.secrets_count += len(secrets)
            self.secrets += secrets[: _KEPT - len(self.secrets)]
            if len(secrets) < len(kinds):
                self.personal_count += 1
                if len(self.personal) < _KEPT:
                    names = ", ".join(kind.value for kind in kinds if kind not in SECRETS)
                    self.personal.append((line, names))

    def facts(self, comparison: Comparison, number: int) -> tuple[ContentFacts, dict[str, int]]:
        """What the rules look at, and how many findings there are beyond those."""
        near, near_count = comparison.near(number, _KEPT)
        contradictions, contradictions_count = comparison.contradictions(number, _KEPT)
        leaks, leaks_count = comparison.leaks(number, _KEPT)
        # Rows that mix languages are named where so few do that it looks like an accident.
        mixed_count = self.mixed_count
        if mixed_count >= self.same_language * _RARE_LANGUAGE:
            mixed_count = 0
        facts = ContentFacts(
            near=near,
            contradictions=contradictions,
            leaks=leaks,
            strangers=self.languages.strangers(_RARE_LANGUAGE),
            mixed=self.mixed[:mixed_count],
            secrets=self.secrets,
            personal=self.personal,
            habits=self.habits.facts(),
        )
        more = {
            "near-duplicate": near_count - len(near),
            "contradiction": contradictions_count - len(contradictions),
            "leaked-row": leaks_count - len(leaks),
            "answered-in-other-language": max(0, mixed_count - len(self.mixed)),
            "secret-in-row": self.secrets_count - len(self.secrets),
            "personal-data": self.personal_count - len(self.personal),
        }
        return facts, more


class _Survey:
    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._paths = paths
        self._progress = progress
        self._index = RowIndex(folder)
        self._texts = (folder / "texts").open("w+b")
        self._offset = 0
        self._files: list[_File] = []
        self._done = 0
        self._bytes = sum(path.stat().st_size for path in paths)
        self._comparing = self._bytes // _COMPARING + 1

    def run(
        self, names: Sequence[str], kinds: Sequence[RowKind] | None, processes: int | None
    ) -> ContentReport:
        try:
            for path in self._paths:
                self._read(path, kinds, processes)
            self._index.close()
            self._texts.flush()
            comparison = Comparison(self._index, self._texts.fileno(), self._say_compared)
            report = self._report(comparison, names)
        finally:
            self._index.close()
            self._texts.close()
        self._say(self._bytes + self._comparing)
        return report

    def _read(self, path: Path, kinds: Sequence[RowKind] | None, processes: int | None) -> None:
        self._index.next_file()
        file = _File()
        self._files.append(file)
        setup = SurveySetup(str(path.absolute()), _kind_in(path, kinds))
        count = processes_for(path, _WORTH_BYTES) if processes is None else processes
        with closing(run_chunks(WORK, setup, chunks_of(path), count)) as parts:
            for chunk, part in parts:
                self._keep(part)
                file.add(part)
                self._say(self._done + chunk.end)
        self._done += path.stat().st_size

    def _keep(self, part: SurveyPart) -> None:
        sizes = np.frombuffer(part.columns["size"], np.int64)
        offsets = self._offset + np.cumsum(sizes) - sizes
        self._index.add({**part.columns, "offset": offsets.tobytes()})
        self._texts.write(part.texts)
        self._offset += len(part.texts)

    def _say(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._bytes + self._comparing)

    def _say_compared(self, done: int, of: int) -> None:
        self._say(self._bytes + self._comparing * done // of)

    def _report(self, comparison: Comparison, names: Sequence[str]) -> ContentReport:
        findings: list[Finding] = []
        by_file: list[Counter[str]] = []
        for number, (file, name) in enumerate(zip(self._files, names, strict=True)):
            facts, more = file.facts(comparison, number)
            counts: Counter[str] = Counter()
            by_file.append(counts)
            for rule in CONTENT_RULES:
                for fault in rule.find(facts):
                    counts[rule.code] += 1
                    if counts[rule.code] <= _KEPT:
                        findings.append(
                            Finding(
                                rule.code,
                                rule.severity,
                                fault.message,
                                fault.remedy or rule.remedy,
                                name,
                                fault.line,
                                other_line=fault.other_line,
                            )
                        )
                if more.get(rule.code):
                    counts[rule.code] += more[rule.code]
        every: Counter[str] = sum(by_file, Counter())
        first = self._files[0].languages.counts
        return ContentReport(
            rows=self._index.rows,
            findings=tuple(findings),
            counts=dict(every),
            by_file=tuple(dict(counts) for counts in by_file),
            languages=dict(sorted(first.items(), key=lambda item: -item[1])),
            complete=comparison.complete,
        )


def _kind_in(path: Path, kinds: Sequence[RowKind] | None) -> RowKind | None:
    """The kind of the first row that can be read; None where there is none."""
    allowed = tuple(kinds) if kinds is not None else None
    for line in LineReader(path, CheckLimits().max_line_bytes, block_bytes=1 << 16):
        row = None if line.raw is None or line.is_blank else quick_value(line.raw, MAX_DEPTH)
        if isinstance(row, dict):
            return kind_of_file(row, allowed)
    return None
