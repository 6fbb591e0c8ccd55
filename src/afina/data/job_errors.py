"""A report as the error of a job, in the words that OpenAI's clients know, with the lines."""

from __future__ import annotations

from typing import Final, Literal

from afina.data.check import CheckReport
from afina.data.kinds import RowKind
from afina.domain.findings import Finding, Severity
from afina.domain.jobs import JobError
from afina.domain.sayings import Said, say

Which = Literal["training_file", "validation_file"]

_LINES_SHOWN: Final = 20
_KINDS: Final = {
    RowKind.CHAT: 'chats ("messages")',
    RowKind.PROMPT_COMPLETION: 'raw text ("prompt" and "completion")',
    RowKind.PREFERENCE: 'preferences ("input" and two outputs)',
    RowKind.RFT: "tasks",
}
_TITLE: Final = {"training_file": "Training file", "validation_file": "Validation file"}


def job_error(report: CheckReport, which: Which) -> JobError | None:
    """Why a job with this file fails, or None where it does not."""
    if not report.has_errors:
        return None
    faults = [f for f in report.findings if f.severity is Severity.ERROR]
    of_rows = [f for f in faults if f.line is not None]
    if of_rows:
        message = _format_message(report, of_rows[0], which)
        return JobError("invalid_file_format", message, which, _said(report, of_rows[0], which))
    return _too_few(report, which)


def left_too_few(report: CheckReport, which: Which, left_out: int) -> JobError | None:
    """Why a job fails where moderation left out so many of a file's rows; None where enough of
    them stay."""
    if report.rows_usable - left_out >= report.limits.min_rows:
        return None
    return _too_few(report, which, left_out)


def kinds_differ(training: RowKind, validation: RowKind) -> JobError | None:
    """Why a job fails whose validation rows are of another kind; None where they are not."""
    if training is validation:
        return None
    message = (
        "The job failed due to a file format error in the validation file. Invalid file format. "
        f"Its rows are {_KINDS[validation]}, and those of the training file are "
        f"{_KINDS[training]}: their losses cannot be compared. Give rows of one kind in both."
    )
    return JobError("invalid_file_format", message, "validation_file")


def _too_few(report: CheckReport, which: Which, left_out: int = 0) -> JobError:
    count, least = report.rows_usable - left_out, report.limits.min_rows
    without = f" without the {left_out} that moderation left out" if left_out else ""
    message = (
        f"{_TITLE[which]} has {count} example(s){without}, but must have at least {least} examples"
    )
    few = say("too_few", file=which.removesuffix("_file"), n=count, least=least)
    return JobError("invalid_n_examples", message, which, (few,))


def _said(report: CheckReport, finding: Finding, which: Which) -> tuple[Said, ...]:
    """The first fault and how many rows have one, by name."""
    bad = report.bad_lines
    first = say("row", file=which.removesuffix("_file"), line=finding.line or 0, rule=finding.rule)
    if len(bad) < 2:
        return (first,)
    listed = ", ".join(str(line) for line in bad[:_LINES_SHOWN])
    return (first, say("rows", n=len(bad), rows=report.rows_total, lines=listed))


def _format_message(report: CheckReport, finding: Finding, which: Which) -> str:
    place = f"Example {report.first_bad_example}"
    if finding.message_number is not None:
        place += f", message {finding.message_number}"
    reads_on = finding.message[:1].islower() or finding.message.startswith("Discriminator")
    joined = "" if reads_on else ":"
    return (
        f"The job failed due to a file format error in the {which.replace('_', ' ')}. "
        f"Invalid file format. {place}{joined} {finding.message} (line {finding.line}, rule "
        f"{finding.rule}) {finding.remedy} {_lines(report)}"
    )


def _lines(report: CheckReport) -> str:
    bad = report.bad_lines
    listed = ", ".join(str(line) for line in bad[:_LINES_SHOWN])
    more = f" and {len(bad) - _LINES_SHOWN} more" if len(bad) > _LINES_SHOWN else ""
    if len(bad) == 1:
        return f"1 row of {report.rows_total} has errors: line {listed}."
    return f"{len(bad)} rows of {report.rows_total} have errors: lines {listed}{more}."
