"""What the check warns of in a job's files, by rows alone and by what they say together: the same
findings as those of `afina data check`. A warning stops no job; it is said as an event, so that
nobody who came by the API alone trains on a file that leaks or contradicts itself and never hears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from afina.data.check import CheckReport
from afina.data.content.survey import check_content
from afina.data.kinds import KINDS_OF_METHOD
from afina.domain.findings import Finding, Severity
from afina.domain.sayings import Said, say
from afina.language.strings import Texts

_LINES_SAID: Final = 5
_PASSED_OVER: Final = frozenset({"blank-lines"})
"""Counted in the report; no reader has to do anything about it."""


@dataclass(frozen=True)
class Warnings:
    """The warnings over one file. Findings hold lines, never text."""

    which: str
    """`training_file` or `validation_file`."""
    counts: Mapping[str, int]
    """By rule, those left out of `findings` included."""
    findings: tuple[Finding, ...]
    compared: bool = True
    """False where so many rows looked alike that not all were compared."""

    def said(self) -> tuple[Said, ...]:
        """One sentence a rule under a first one; none where nothing was found in all rows."""
        told = [self._said(rule, count) for rule, count in self.counts.items()]
        if not self.compared:
            told.append(say("not_all_compared"))
        return (say("warned", file=self.which.removesuffix("_file")), *told) if told else ()

    def data(self) -> dict[str, Any]:
        """Counts, the first lines and the meaning by rule, as the event holds them."""
        return {
            "file": self.which,
            "findings": dict(self.counts),
            "lines": self._lines(),
            "meanings": {rule: f"{_meaning(rule)}." for rule in self.counts},
        }

    def _lines(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for finding in self.findings:
            if finding.line is not None:
                found.setdefault(finding.rule, []).append(finding.line)
        return {rule: lines[:_LINES_SAID] for rule, lines in found.items()}

    def _said(self, rule: str, count: int) -> Said:
        lines = self._lines().get(rule)
        if not lines:
            return say("warned_file", rule=rule, why=_meaning(rule))
        if count == 1:
            return say("warned_line", rule=rule, line=lines[0], why=_meaning(rule))
        more = ", …" if count > len(lines) else ""
        listed = ", ".join(map(str, lines)) + more
        return say("warned_lines", rule=rule, n=count, lines=listed, why=_meaning(rule))


def _meaning(rule: str) -> str:
    """What a rule means and what to do about it, in short: its code says that to nobody who came
    by the API alone."""
    return Texts("en")(f"rule.{rule.replace('-', '_')}").rstrip(".")


@dataclass(frozen=True)
class Looked:
    """A file of a job that passed its check."""

    which: str
    path: Path
    report: CheckReport


def survey(
    files: Sequence[Looked], method: str, scratch: Path, progress: Callable[[int, int], None]
) -> list[Warnings]:
    """The warnings over a job's training file and, where it has one, its validation file. What is
    compared lies under `scratch` for as long as it takes; `progress(done, all)` is called now and
    then."""
    content = check_content(
        *(file.path for file in files),
        kinds=KINDS_OF_METHOD[method],
        progress=progress,
        names=[file.which for file in files],
        scratch=scratch,
    )
    made = []
    for file, counts in zip(files, content.by_file, strict=True):
        own = [f for f in file.report.findings if _is_said(f)]
        together = [f for f in content.findings if f.file == file.which and _is_said(f)]
        rules = dict.fromkeys(finding.rule for finding in (*own, *together))
        every = {**file.report.counts, **counts}
        said = {rule: every[rule] for rule in rules}
        made.append(Warnings(file.which, said, (*own, *together), content.complete))
    return made


def _is_said(finding: Finding) -> bool:
    return finding.severity is Severity.WARNING and finding.rule not in _PASSED_OVER
