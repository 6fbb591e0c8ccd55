"""`afina data`: convert, check and estimate on this machine, without a server.

The server's own stages call the same functions, so the verdict here is the verdict there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import console, in_bytes, in_count, print_facts, print_json, tell

if TYPE_CHECKING:
    from afina.data.check import CheckReport
    from afina.data.convert import ConvertReport
    from afina.domain.models import BaseModel
    from afina.settings import Settings

app = typer.Typer(
    help="Make training files from tables, check them, and see what they cost.",
    no_args_is_help=True,
)

_SHOWN = 20
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="BASE", help="The base model whose tokenizer and template count."
    ),
]


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="CSV, TSV, XLSX, JSON, JSONL, Parquet."),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="JSONL", help="The file to write.")],
    user: Annotated[str | None, typer.Option(help="The column that the user says.")] = None,
    assistant: Annotated[
        str | None, typer.Option(help="The column that the assistant answers.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message for every row, as text.")
    ] = None,
    system_column: Annotated[
        str | None, typer.Option(help="The column that holds each row's system message.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="The format, where the file's name does not say it.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The text's encoding; found out where not given.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="What separates columns.")] = None,
    sheet: Annotated[str | None, typer.Option(help="The sheet of a workbook.")] = None,
    json: JsonOption = False,
) -> None:
    """Turn a table into chats, one a line (JSONL)."""
    from afina.data.convert import ConvertOptions, convert_file

    options = ConvertOptions(
        user=user,
        assistant=assistant,
        system_column=system_column,
        system=system,
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        sheet=sheet,
    )
    with _bar("Converting") as progress:
        report = convert_file(source, to, options, progress)
    if json:
        from afina.domain.codec import encode

        print_json(encode(report))
        return
    _show_conversion(report, to)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A chat JSONL file.")],
    model: ModelOption = None,
    clean: Annotated[
        Path | None, typer.Option("--clean", metavar="OUT", help="Write the usable rows here.")
    ] = None,
    validation: Annotated[
        bool, typer.Option("--validation", help="A validation file may have fewer rows.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every finding.")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check a training file: what is wrong, where, and what to do. Exit code 1 if it has errors.

    With --clean the usable rows are written, the others are counted by reason, and the exit code
    is 0 if any row is left.
    """
    from afina.data.check import write_clean

    settings = load_settings(data)
    base = _base(settings, model)
    report = _check(settings, path, base, validation)
    cleaned = write_clean(path, report, clean) if clean is not None else None
    if json:
        from afina.domain.codec import encode

        shown = encode(report) | {"bad_lines": list(report.bad_lines)}
        shown["model"] = base.id if base else None
        print_json(shown | ({"clean": encode(cleaned)} if cleaned else {}))
    else:
        _show_report(report, base, show_all)
        if cleaned is not None:
            print(
                f"{clean}: {in_count(cleaned.rows_out)} rows written, "
                f"{in_count(cleaned.rows_dropped)} of {in_count(cleaned.rows_in)} dropped "
                f"for the reasons above."
            )
    usable = cleaned.rows_out > 0 if cleaned is not None else not report.has_errors
    if not usable:
        raise typer.Exit(1)


@app.command()
def estimate(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A chat JSONL file.")],
    model: ModelOption = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=50, help="Epochs; by default auto.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=256, help="Rows a step; by default auto.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Tokens, steps, time and money of a job with this file, before it starts."""
    from afina.data.estimate import estimate as estimate_job
    from afina.domain.codec import encode
    from afina.domain.jobs import Hyperparameters
    from afina.errors import ModelNotFound
    from afina.service.pricing import prices_of
    from afina.text.renderer import Renderer

    settings = load_settings(data)
    base = _base(settings, model)
    if base is None:
        raise ModelNotFound(
            "An estimate needs a base model, and none is named.", remedy="Name one with --model."
        )
    rate = base.capabilities.get("train_tokens_per_s")
    result = estimate_job(
        path,
        Renderer.load(Path(base.path)),
        report=_check(settings, path, base),
        hyperparameters=Hyperparameters(epochs or "auto", batch_size or "auto"),
        prices=prices_of(settings, base.id),
        tokens_per_s=float(rate) if rate else None,
    )
    if json:
        print_json(encode(result) | {"model": base.id})
        return
    print_facts(_estimate_facts(result, base))


def _show_conversion(report: ConvertReport, to: Path) -> None:
    read = [report.format]
    if report.encoding:
        why = f" ({report.encoding_reason})" if report.encoding_reason else ""
        read.append(f"{report.encoding}{why}")
    if report.sheet:
        read.append(f"sheet {report.sheet}")
    facts = {"read": ", ".join(read), "columns": ", ".join(report.columns)}
    facts["rows"] = f"{in_count(report.rows_in)} read, {in_count(report.rows_out)} written"
    if report.dropped:
        reasons = (f"{count} {reason}" for reason, count in report.dropped.items())
        facts["dropped"] = ", ".join(reasons)
    facts["written"] = str(to)
    print_facts(facts)
    for note in report.notes:
        tell(note)


def _estimate_facts(result: Any, base: BaseModel) -> dict[str, str]:
    from afina.cli.terminal import in_dollars, in_time
    from afina.domain.prices import dollars

    dropped = f", {in_count(result.rows_dropped)} not usable" if result.rows_dropped else ""
    facts = {
        "model": base.id,
        "rows": f"{in_count(result.rows)}{dropped}",
        "tokens": f"{in_count(result.tokens_per_epoch)} an epoch, "
        f"{in_count(result.learned_tokens_per_epoch)} of them learned; "
        f"longest row {in_count(result.longest_row)}",
        "steps": f"{in_count(result.steps)}: {result.epochs} epochs, "
        f"batches of {result.batch_size}",
        "trained tokens": in_count(result.trained_tokens),
    }
    if result.seconds is None:
        facts["time"] = "unknown: this machine's rate with the model was never measured"
    else:
        about = f"± {result.seconds_error:.0%} where nothing else runs"
        facts["time"] = f"about {in_time(result.seconds)} ({about})"
    facts["cost"] = in_dollars(dollars(result.cost_pico))
    return facts


def _base(settings: Settings, name: str | None) -> BaseModel | None:
    from afina.cli.bases import default_base, find_base

    return find_base(settings, name) if name else default_base(settings)


def _check(
    settings: Settings, path: Path, base: BaseModel | None, validation: bool = False
) -> CheckReport:
    from afina.data.check import CheckLimits, check_file
    from afina.text.renderer import Renderer

    renderer = Renderer.load(Path(base.path)) if base else None
    longest = settings.training.max_row_tokens
    if base is not None and base.context_tokens:
        longest = min(longest, base.context_tokens)
    limits = CheckLimits(min_rows=1 if validation else 10, max_row_tokens=longest)
    with _bar("Checking") as progress:
        return check_file(path, limits, renderer, progress)


def _show_report(report: CheckReport, base: BaseModel | None, show_all: bool) -> None:
    shown = report.findings if show_all else report.findings[:_SHOWN]
    for finding in shown:
        print(f"{finding.severity}: {finding.one_line()}")
    hidden = len(report.findings) - len(shown)
    if hidden:
        print(f"… and {in_count(hidden)} more; --all shows them.")
    if report.findings_left_out:
        print(f"… and {in_count(report.findings_left_out)} more that are only counted.")
    if report.findings:
        print()
    facts = {
        "file": f"{report.file}, {in_bytes(report.bytes_total)}",
        "rows": f"{in_count(report.rows_total)}, {in_count(report.rows_usable)} usable",
    }
    if report.blank_lines:
        facts["blank lines"] = in_count(report.blank_lines)
    if report.counts:
        facts["findings"] = ", ".join(f"{count} {rule}" for rule, count in report.counts.items())
    if base is not None:
        facts["tokens"] = (
            f"{in_count(report.tokens)}, {in_count(report.learned_tokens)} of them learned "
            f"(as {base.id} counts)"
        )
    print_facts(facts)
    if base is None:
        tell("Lengths in tokens were not checked: name a base model with --model.")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as live:
        task = live.add_task(title, total=None)
        yield lambda done, total: live.update(task, completed=done, total=total)
