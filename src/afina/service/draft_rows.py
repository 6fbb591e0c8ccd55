"""The rows of a draft: read, checked, mended, dropped, undone, and saved as a training file.

A row keeps its number for ever. Edits are a list of steps that can be taken back; the state of the
rows follows from them. Findings are those of the check that a job makes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from afina.data.check import CheckLimits, check_file
from afina.data.content.survey import check_content
from afina.data.kept_checks import KeptTallies
from afina.domain.accounts import Caller
from afina.domain.codec import decode, encode
from afina.domain.files import StoredFile
from afina.domain.findings import Finding
from afina.errors import InvalidRequest, NotFound
from afina.service import bases
from afina.service.draft_edits import (
    History,
    Step,
    changes_of,
    locked,
    read_history,
    write_history,
    write_whole,
)
from afina.service.draft_files import Draft, read_draft
from afina.service.drafts import changing, folder_of, get_draft
from afina.service.files import upload_file
from afina.service.platform import Platform
from afina.service.renderers import renderer_of

MAX_WINDOW: Final = 400
_MAX_FINDINGS: Final = 20_000
COMPARED_ROWS: Final = 2_000
"""Up to so many rows, all are compared with one another after each edit: a reader waits for it."""
_ABOUT_BLANKS: Final = "blank-lines"
_MAX_ROW_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Verdict:
    """What the check says of the rows as they are now. Rows count from 1."""

    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    rows_kept: int
    """Rows that were not dropped."""
    rows_bad: int
    """Of those, rows with an error: they are left out of the training file."""
    dropped: int
    edits: int
    redo: int
    tokens: int
    longest_row: int
    bad: tuple[int, ...]
    """The numbers of those with an error: all of them, also where findings are too many to list."""
    is_complete: bool
    """Whether the check went to the end; it stops where so many rows are bad that more say
    nothing new."""
    compared: bool = False
    """Whether it was looked at what rows say together: copies, contradictions, languages."""

    @property
    def rows_usable(self) -> int:
        return self.rows_kept - self.rows_bad


@dataclass(frozen=True)
class DraftRow:
    """One row as it is now; `value` is None where the text is no JSON object."""

    number: int
    text: str
    value: Mapping[str, Any] | None
    is_dropped: bool
    is_edited: bool


def verdict_of(platform: Platform, draft: Draft) -> Verdict:
    """The findings, from the last check if nothing has changed since."""
    folder = folder_of(platform, draft.id)
    try:
        return decode(Verdict, json.loads((folder / "findings.json").read_bytes()), "findings")
    except (FileNotFoundError, ValueError):
        with locked(folder):
            return _check(platform, folder)


def read_rows(platform: Platform, draft: Draft, numbers: Sequence[int] | range) -> list[DraftRow]:
    """Those rows, in that order; numbers that are none are left out, all of them as long as no
    columns are chosen."""
    if not draft.is_ready:
        return []
    folder = folder_of(platform, draft.id)
    changed = changes_of(read_history(folder))
    index = _index(folder)
    found = []
    with (folder / "rows.jsonl").open("rb") as lines:
        for number in numbers[:MAX_WINDOW]:
            if not 1 <= number <= len(index):
                continue
            lines.seek(index[number - 1])
            text = lines.readline().decode("utf-8", "replace").rstrip("\n")
            new = changed.get(number, text)
            found.append(
                DraftRow(number, text if new is None else new, _value(new or text),
                         new is None, number in changed and new is not None)
            )  # fmt: skip
    return found


def numbers_of(platform: Platform, draft: Draft, which: str) -> Sequence[int]:
    """The numbers of the rows that a filter shows: all, dropped, edited, bad, findings, or those
    with a finding of the rule that is named."""
    if which == "all":
        return range(1, draft.rows + 1)
    if which in ("dropped", "edited"):
        changed = changes_of(read_history(folder_of(platform, draft.id)))
        return sorted(n for n, text in changed.items() if (text is None) == (which == "dropped"))
    verdict = verdict_of(platform, draft)
    if which == "bad":
        return verdict.bad
    named = {
        finding.line
        for finding in verdict.findings
        if finding.line is not None and which in ("findings", finding.rule)
    }
    return sorted(named.union(verdict.bad) if which == "findings" else named)


def edit_row(platform: Platform, caller: Caller, draft_id: str, number: int, text: str) -> Verdict:
    """Puts another JSON object in the place of a row. Raises InvalidRequest, NotFound."""
    if len(text) > _MAX_ROW_BYTES:
        raise InvalidRequest("A row may have at most 1 MiB here.", param="text")
    if _value(text) is None:
        raise InvalidRequest("This is not a JSON object.", param="text", remedy="Mend its form.")
    one_line = json.dumps(json.loads(text), ensure_ascii=False)
    with contextlib.suppress(UnicodeEncodeError):
        one_line.encode()
        return _add(platform, caller, draft_id, Step((number,), one_line))
    one_line = json.dumps(json.loads(text))  # half a surrogate pair: escaped, for the check to name
    return _add(platform, caller, draft_id, Step((number,), one_line))


def drop_rows(platform: Platform, caller: Caller, draft_id: str, numbers: Sequence[int]) -> Verdict:
    """Leaves those rows out."""
    return _add(platform, caller, draft_id, Step(tuple(numbers)))


def undo(platform: Platform, caller: Caller, draft_id: str, *, again: bool = False) -> Verdict:
    """Takes the last edit back, or does it `again`. Raises InvalidRequest where there is none."""
    with changing(platform, caller, draft_id) as (folder, _):
        history = read_history(folder)
        if not (history.undone if again else history.done):
            raise InvalidRequest("There is nothing to undo." if not again else "Nothing to redo.")
        if again:
            history = History((*history.done, history.undone[-1]), history.undone[:-1])
        else:
            history = History(history.done[:-1], (*history.undone, history.done[-1]))
        return _keep(platform, folder, history)


def save_draft(platform: Platform, caller: Caller, draft_id: str, name: str) -> StoredFile:
    """Makes a training file of the rows that are neither dropped nor faulty. Raises InvalidRequest
    where none is left, or not all were looked at."""
    draft = get_draft(platform, caller, draft_id)
    verdict = verdict_of(platform, draft)
    if not verdict.is_complete:
        raise InvalidRequest(
            f"{verdict.rows_bad:,} rows have errors, and the check stopped there: nobody knows "
            "what the others are.",
            remedy="Mend how the file is made, and bring it again.",
            code="check_stopped",
        )
    bad = set(verdict.bad)
    rows = _current(folder_of(platform, draft_id))
    usable = [text for number, text in rows if text is not None and number not in bad]
    if not usable:
        raise InvalidRequest("No row is left to save.", remedy="Mend a row or bring another file.")
    lines = (text.encode() + b"\n" for text in usable)
    return upload_file(platform, caller, lines, name, "fine-tune")


def _add(platform: Platform, caller: Caller, draft_id: str, step: Step) -> Verdict:
    with changing(platform, caller, draft_id) as (folder, draft):
        if not step.rows or any(not 1 <= number <= draft.rows for number in step.rows):
            raise NotFound(f"The draft has rows from 1 to {draft.rows}.", param="row")
        done = (*read_history(folder).done, step)
        return _keep(platform, folder, History(done))


def _keep(platform: Platform, folder: Path, history: History) -> Verdict:
    write_history(folder, history)
    return _check(platform, folder)


def _check(platform: Platform, folder: Path) -> Verdict:
    """Checks the rows as they are now; the caller holds the lock. A dropped row is a blank line, so
    that numbers stay."""
    draft = read_draft(folder)
    history = read_history(folder)
    current = folder / "current.jsonl"
    dropped = 0
    with current.open("wb") as out:
        for _, text in _current(folder):
            dropped += text is None
            out.write((text or "").encode() + b"\n")
    base = None if draft.base is None else bases.get_base(platform, draft.base)
    renderer = None if base is None or not base.admitted else renderer_of(base)
    longest = platform.settings.training.max_row_tokens
    if renderer is not None:
        longest = min(longest, renderer.context_tokens)
    limits = CheckLimits(max_row_tokens=longest, max_findings=_MAX_FINDINGS)
    kept = KeptTallies(folder / "tallies") if draft.rows > COMPARED_ROWS else None
    report = check_file(current, limits, renderer, name=draft.filename, kept=kept)
    content = None
    if report.complete and report.rows_total <= COMPARED_ROWS:
        content = check_content(current, names=[draft.filename], processes=1)
    current.unlink()
    counts = {**report.counts, **(content.counts if content else {})}
    findings = (*report.findings, *(content.findings if content else ()))
    verdict = Verdict(
        findings=tuple(f for f in findings if f.rule != _ABOUT_BLANKS),
        counts={rule: count for rule, count in counts.items() if rule != _ABOUT_BLANKS},
        rows_kept=report.rows_total,
        rows_bad=len(report.bad_lines),
        dropped=dropped,
        edits=len(history.done),
        redo=len(history.undone),
        tokens=report.tokens,
        longest_row=report.longest_row,
        bad=tuple(report.bad_lines),
        is_complete=report.complete,
        compared=content is not None and content.complete,
    )
    write_whole(folder / "findings.json", json.dumps(encode(verdict)).encode())
    return verdict


@contextlib.contextmanager
def written_rows(folder: Path) -> Iterator[Path]:
    """The rows that were not dropped, as a file for as long as it is looked at."""
    with tempfile.TemporaryDirectory(prefix="look-", dir=folder) as place:
        path = Path(place) / "rows.jsonl"
        with path.open("wb") as out:
            for _, text in _current(folder):
                if text is not None:
                    out.write(text.encode() + b"\n")
        yield path


def _current(folder: Path) -> Iterator[tuple[int, str | None]]:
    """Every row's number and text; None where it is dropped."""
    changed = changes_of(read_history(folder))
    with (folder / "rows.jsonl").open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            yield number, changed.get(number, line.rstrip("\n"))


def _index(folder: Path) -> array[int]:
    offsets = array("q")
    with contextlib.suppress(FileNotFoundError):  # no columns are chosen yet
        offsets.frombytes((folder / "rows.index").read_bytes())
    return offsets


def _value(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
