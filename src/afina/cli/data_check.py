"""`afina data check`: what is wrong in a training file, where, and what to do."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afina.cli.file_bar import file_bar
from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_bytes, in_count, print_facts, print_json, tell
from afina.errors import InvalidRequest

if TYPE_CHECKING:
    from afina.data.check import CheckReport
    from afina.data.content.survey import ContentReport
    from afina.data.distributions import Distributions
    from afina.domain.findings import Finding
    from afina.domain.models import BaseModel
    from afina.settings import Settings

_SHOWN = 20
_BAR = 40


class Method(enum.StrEnum):
    """How a job would train on the file."""

    SUPERVISED = "supervised"
    DPO = "dpo"
    REINFORCEMENT = "reinforcement"


MethodOption = Annotated[
    Method | None,
    typer.Option("--method", help="The job's method, which decides what rows must be."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="BASE", help="The base model whose tokenizer and template count."
    ),
]


def check(
    path: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A training file, JSONL.")
    ],
    model: ModelOption = None,
    method: MethodOption = None,
    clean: Annotated[
        Path | None, typer.Option("--clean", metavar="OUT", help="Write the usable rows here.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", metavar="OUT", help="Write the file with all that can be mended."),
    ] = None,
    validation: Annotated[
        bool, typer.Option("--validation", help="A validation file may have fewer rows.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--validation-file",
            exists=True,
            dir_okay=False,
            metavar="JSONL",
            help="A job's validation file, to find rows of it that the training file has too.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only look at each row alone: no copies, no languages.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--report", metavar="HTML", help="Write the report as one page."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every finding.")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check a training file: what is wrong, where, and what to do. Exit code 1 if it has errors.

    With --fix what a machine can mend is mended, into a new file, and that one is checked. With
    --clean the usable rows are written, the others are counted by reason, and the exit code is 0
    if any row is left.
    """
    from afina.data.check import write_clean
    from afina.data.distributions import measure_rows
    from afina.data.fixes import fix_file
    from afina.data.hints import conversion_hint, has_rows
    from afina.data.report import html_report
    from afina.data.targets import check_targets

    check_targets(path, fix, clean, html)
    if against is not None and not has_rows(against):
        raise InvalidRequest(
            f"{against.name} has no row to compare with.",
            remedy=conversion_hint(against) or "Give a validation file, JSONL.",
        )
    settings = load_settings(data)
    base = find_or_default(settings, model)
    mended = fix_file(path, fix) if fix is not None else None
    path = fix or path
    report = checked(settings, path, base, validation, method)
    content = None if quick else surveyed(path, against, method)
    with file_bar("Measuring") as progress:
        lengths = measure_rows(path, report.kind, progress)
    hint = conversion_hint(path) if report.rows_usable == 0 else None
    if html is not None:
        html.write_text(html_report(report, content, lengths), encoding="utf-8")
    cleaned = write_clean(path, report, clean) if clean is not None else None
    if json:
        from afina.domain.codec import encode

        shown = encode(report) | {"bad_lines": list(report.bad_lines)}
        shown["model"] = base.id if base else None
        extra = {"clean": encode(cleaned)} if cleaned else {}
        extra |= {"fix": encode(mended)} if mended else {}
        extra |= {"content": encode(content)} if content else {}
        print_json(shown | extra)
    else:
        if mended is not None:
            changes = ", ".join(f"{count} {rule}" for rule, count in mended.changes.items())
            print(f"{fix}: mended {changes or 'nothing'}; the rest is about the new file.\n")
        _show_report(report, content, base, show_all, at_most=_SHOWN if hint is None else 1)
        _show_lengths(lengths)
        if cleaned is not None:
            print(
                f"{clean}: {in_count(cleaned.rows_out)} rows written, "
                f"{in_count(cleaned.rows_dropped)} of {in_count(cleaned.rows_in)} dropped "
                f"for the reasons above."
            )
    if hint is not None:
        tell(hint)
    usable = cleaned.rows_out > 0 if cleaned is not None else not report.has_errors
    if not usable:
        raise typer.Exit(1)


def find_or_default(settings: Settings, name: str | None) -> BaseModel | None:
    """The base that is named, else the only one there is."""
    from afina.cli.bases import default_base, find_base

    return find_base(settings, name) if name else default_base(settings)


def checked(
    settings: Settings,
    path: Path,
    base: BaseModel | None,
    validation: bool = False,
    method: str | None = None,
) -> CheckReport:
    """The report on a file as a job would give it, with a progress bar."""
    from afina.data.check import check_file
    from afina.data.limits import limits_of
    from afina.text.renderer import Renderer

    renderer = Renderer.load(Path(base.path)) if base else None
    longest = settings.training.max_row_tokens
    if base is not None and base.context_tokens:
        longest = min(longest, base.context_tokens)
    limits = limits_of(method, validation, longest)
    with file_bar("Checking") as progress:
        return check_file(path, limits, renderer, progress)


def surveyed(path: Path, against: Path | None, method: str | None) -> ContentReport:
    """What rows of a file, and of its validation file, say together, with a progress bar."""
    from afina.data.content.survey import check_content
    from afina.data.kinds import KINDS_OF_METHOD

    with file_bar("Comparing") as progress:
        kinds = None if method is None else KINDS_OF_METHOD[method]
        paths = [path] if against is None else [path, against]
        return check_content(*paths, kinds=kinds, progress=progress)


def _show_report(
    report: CheckReport,
    content: ContentReport | None,
    base: BaseModel | None,
    show_all: bool,
    at_most: int,
) -> None:
    """`at_most` findings: where no line is a row, one says as much as twenty."""
    findings = [*report.findings, *(content.findings if content else ())]
    counts = dict(report.counts) | dict(content.counts if content else {})
    shown = findings if show_all else _some_of_each(findings, at_most)
    for finding in shown:
        print(f"{finding.severity}: {finding.one_line()}")
    hidden = len(findings) - len(shown)
    if hidden:
        print(f"… and {in_count(hidden)} more; --all shows them.")
    left_out = sum(counts.values()) - len(findings)
    if left_out:
        print(f"… and {in_count(left_out)} more that are only counted.")
    if findings:
        print()
    facts = {
        "file": f"{report.file}, {in_bytes(report.bytes_total)}",
        "rows": f"{in_count(report.rows_total)} ({report.kind.replace('_', ' ')}), "
        f"{in_count(report.rows_usable)} usable",
    }
    if report.blank_lines:
        facts["blank lines"] = in_count(report.blank_lines)
    if counts:
        facts["findings"] = ", ".join(f"{count} {rule}" for rule, count in counts.items())
    if content is not None and not content.complete:
        facts["compared"] = "not all: so many rows look alike that copies may have been missed"
    if base is not None:
        facts["tokens"] = (
            f"{in_count(report.tokens)}, {in_count(report.learned_tokens)} of them learned "
            f"(as {base.id} counts)"
        )
    print_facts(facts)
    if base is None:
        tell("Lengths in tokens were not checked: name a base model with --model.")


def _show_lengths(lengths: Distributions) -> None:
    """A picture of each distribution: a bar a bin, bins that double."""
    for name, histogram in lengths.histograms.items():
        bins = histogram.filled()
        most = max((count for _, count in bins), default=0)
        if most == 0 or len(bins) < 2:
            continue
        print(f"\n{name}, {histogram.mean:,.0f} on average")
        for bound, count in bins:
            bar = "█" * -(-count * _BAR // most)
            print(f"{f'≤ {bound:,}':>10} {bar} {count:,}" if count else f"{f'≤ {bound:,}':>10}")


def _some_of_each(findings: list[Finding], most: int) -> list[Finding]:
    """At most so many, and of each rule at least the first, in the order in which they came."""
    firsts: dict[str, int] = {}
    for place, finding in enumerate(findings):
        firsts.setdefault(finding.rule, place)
    chosen = set(list(firsts.values())[:most])
    chosen |= set(range(len(findings))[: max(0, most - len(chosen))])
    return [findings[place] for place in sorted(chosen)]
