"""Checks a training file against the rules, in one streaming pass of flat memory.

The same function gives the verdict for the command, the upload and the job. What it keeps of a
file is a fixed number of findings, and a few bytes a row (hashes and numbers of lines).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from afina.data.beside import processes_for, run_chunks
from afina.data.chunks import Chunk, chunks_of
from afina.data.inspection import WORK, CheckSetup, begin_check, kind_in
from afina.data.kept_checks import KeptTallies
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.tally import Sum, Tally
from afina.data.targets import check_targets
from afina.domain.findings import Finding
from afina.errors import DataUnreadable
from afina.text.renderer import Renderer

__all__ = ["CheckLimits", "CheckReport", "CleanReport", "check_file", "write_clean"]

_WORTH_BYTES: Final = 64 << 20
_WORTH_RENDERED: Final = 16 << 20
"""From so many bytes on several processes are faster than one: starting one takes some tenths of a
second, and nearly a whole one with the tokenizer."""


@dataclass(frozen=True)
class CheckReport:
    """What was found. `rows_total` = `rows_usable` + lines with an error; blank lines apart."""

    file: str
    limits: CheckLimits
    kind: RowKind
    """What the rows are."""
    bytes_total: int
    rows_total: int
    rows_usable: int
    blank_lines: int
    findings: tuple[Finding, ...]
    """The first `limits.max_findings`, by line; those about the whole file last."""
    counts: Mapping[str, int]
    """Findings by rule, those left out of `findings` included."""
    bad_lines: array[int]
    """Lines with an error, ascending."""
    first_bad_example: int | None
    """The number of the first row with an error: blank lines are not counted."""
    complete: bool
    """False where the check stopped because `limits.max_bad_rows` rows have errors."""
    errors: int
    warnings: int
    rendered: bool
    """Whether a renderer took part, so that the three numbers below are known."""
    tokens: int
    """Rendered tokens of the usable rows: what an epoch bills."""
    learned_tokens: int
    longest_row: int
    training_rows: int
    """Rows of a shard that the usable rows become; more than `rows_usable` only where a template
    makes one row a turn."""

    @property
    def has_errors(self) -> bool:
        """Whether a job with this file would fail."""
        return self.errors > 0

    @property
    def findings_left_out(self) -> int:
        """Findings that are counted and not listed."""
        return sum(self.counts.values()) - len(self.findings)


def check_file(  # noqa: PLR0913 - each says where to look, or who looks
    path: str | Path,
    limits: CheckLimits,
    renderer: Renderer | None,
    progress: Callable[[int, int], None] | None = None,
    name: str | None = None,
    processes: int | None = None,
    kept: KeptTallies | None = None,
) -> CheckReport:
    """All findings of a file. `progress(bytes read, bytes in all)` is called now and then; `name`
    stands in the findings instead of the path's own. A large file is looked at by several
    `processes` (None: as many as are worth their start); what is `kept` of the parts that did not
    change is not looked at again; the report is the same. Raises DataUnreadable where there is no
    file to read."""
    path = Path(path)
    try:
        total = path.stat().st_size
        found = Sum(name or path.name, limits, kind_in(path, limits))
        setup = CheckSetup(
            path=str(path.absolute()),
            name=name or path.name,
            limits=limits,
            kind=found.kind,
            model=(str(renderer.folder), renderer.moment) if renderer is not None else None,
        )
        worth = _WORTH_BYTES if renderer is None else _WORTH_RENDERED
        if processes is None:
            processes = processes_for(path, worth)
        here = begin_check(setup, renderer)
        parts: Generator[tuple[Chunk, Tally | None], None, None]
        if kept is not None:
            model = "" if renderer is None else renderer.fingerprint
            parts = kept.look(path, setup, model, here, worth)
        elif processes > 1:
            looked_at = run_chunks(WORK, setup, chunks_of(path), processes)
            parts = (part for part in looked_at)
        else:
            parts = ((chunk, None) for chunk in chunks_of(path))
        _add_up(parts, here, found, total, progress)
    except OSError as error:
        raise DataUnreadable(
            f"{name or path} cannot be read: {error.strerror}.", remedy="Give the path of a file."
        ) from None
    found.finish(total)
    if progress is not None:
        progress(total, total)
    return CheckReport(
        file=setup.name,
        limits=limits,
        kind=found.kind or RowKind.CHAT,
        bytes_total=total,
        rows_total=found.rows,
        rows_usable=found.rows - len(found.bad_lines),
        blank_lines=found.blank_lines,
        first_bad_example=found.first_bad_example,
        complete=not found.is_hopeless,
        findings=found.findings(),
        counts=dict(found.notes.counts),
        bad_lines=found.bad_lines,
        errors=found.notes.errors,
        warnings=found.notes.warnings,
        rendered=renderer is not None,
        tokens=found.tokens,
        learned_tokens=found.learned_tokens,
        longest_row=found.longest_row,
        training_rows=found.training_rows,
    )


def _add_up(
    parts: Generator[tuple[Chunk, Tally | None], None, None],
    here: Callable[[Chunk, int | None], Tally],
    found: Sum,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Adds up the parts of the file until its end, or until too many rows have errors."""
    with closing(parts):
        for chunk, tally in parts:
            if tally is None or len(tally.bad_lines) >= found.bad_rows_left:
                # Who looked at it did not know how many rows were bad before: here it is known.
                tally = here(chunk, found.bad_rows_left)
            found.add(tally)
            if found.is_hopeless:
                return
            if progress is not None:
                progress(chunk.end, total)


@dataclass(frozen=True)
class CleanReport:
    """What `write_clean` did: `rows_in` = `rows_out` + `rows_dropped`."""

    rows_in: int
    rows_out: int
    rows_dropped: int


def write_clean(path: str | Path, report: CheckReport, target: str | Path) -> CleanReport:
    """Writes the usable rows of `path`, byte for byte, to `target`; whole or not at all."""
    path, target = Path(path), Path(target)
    check_targets(path, target)
    if not report.complete:
        raise DataUnreadable(
            f"{report.file} has too many rows with errors to be cleaned.",
            remedy="Mend how the file is made.",
        )
    temporary = target.with_name(target.name + ".part")
    try:
        rows_out, dropped = _copy_usable(path, report, temporary)
        if rows_out != report.rows_usable or dropped != len(report.bad_lines):
            raise DataUnreadable(
                f"{report.file} changed while it was cleaned.", remedy="Check it again."
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return CleanReport(report.rows_total, rows_out, dropped)


def _copy_usable(path: Path, report: CheckReport, target: Path) -> tuple[int, int]:
    """How many rows were written and how many bad lines were left out."""
    rows_out = dropped = 0
    bad = report.bad_lines
    with target.open("wb") as out:
        for line in LineReader(path, report.limits.max_line_bytes):
            if line.is_blank:
                continue
            if dropped < len(bad) and bad[dropped] == line.number:
                dropped += 1
            elif line.raw is not None:
                out.write(line.raw + b"\n")
                rows_out += 1
    return rows_out, dropped
