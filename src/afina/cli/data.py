"""`afina data`: convert, check, split, redact and estimate on this machine, without a server.

The server's own stages call the same functions, so the verdict here is the verdict there.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from afina.cli import data_check, data_erase, data_estimate, data_moderate, data_redact, data_split
from afina.cli.file_bar import file_bar
from afina.cli.options import JsonOption
from afina.cli.terminal import in_count, print_facts, print_json, tell
from afina.errors import InvalidRequest

if TYPE_CHECKING:
    from afina.data.convert import ConvertOptions, ConvertReport

app = typer.Typer(
    help="Make training files from tables, check them, and see what they cost.",
    no_args_is_help=True,
)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="CSV, TSV, XLSX, JSON, JSONL, Parquet, TXT."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="JSONL", help="The file to write.")],
    user: Annotated[
        str | None,
        typer.Option(help="The column that the user says, or a text with columns in braces."),
    ] = None,
    assistant: Annotated[
        str | None,
        typer.Option(help="The column that the assistant answers, or a text with columns."),
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
    layout: Annotated[
        str | None,
        typer.Option(
            help="How records hold rows: chat, sharegpt, alpaca, chatml, pair, preference, "
            "gemini, converse, chatgpt, claude, eval or columns; found out where not given."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="The column that says which conversation a record is of: its records become one "
            "chat of many turns."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="With --group: the column of numbers or dates that puts the records of a "
            "conversation in order; as they stand where not given."
        ),
    ] = None,
    write: Annotated[
        str,
        typer.Option(
            "--as", help="What to write: chat, sharegpt, alpaca, chatml, pair, preference."
        ),
    ] = "chat",
    json: JsonOption = False,
) -> None:
    """Turn tables, chats of other makers and logs into training rows, one a line (JSONL)."""
    from afina.data.convert import ConvertOptions
    from afina.data.targets import check_targets

    options = ConvertOptions(
        user=user,
        assistant=assistant,
        system_column=system_column,
        system=system,
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        sheet=sheet,
        layout=layout,
        group=group,
        order=order,
        write=write,
    )
    check_targets(source, to)
    report = _convert(source, to, options)
    if json:
        from afina.domain.codec import encode

        print_json({**encode(report), "notes": list(report.notes)})
    else:
        _show_conversion(report, to)
    if report.rows_out == 0:
        tell(f"No row was written: {to} is empty.")
        raise typer.Exit(1)


app.command()(data_check.check)
app.command()(data_estimate.estimate)
app.command()(data_split.split)
app.command()(data_moderate.moderate)
app.command()(data_redact.redact)
app.command()(data_redact.restore)
app.command()(data_erase.erase)


_COLUMNS: Final = 30
_QUESTIONS: Final = {
    "user": "Which column does the user say?",
    "assistant": "Which column does the assistant answer?",
    "sheet": "Which sheet?",
    "delimiter": "What separates the columns?",
    "encoding": "Which encoding has the file?",
}


def _convert(source: Path, to: Path, options: ConvertOptions) -> ConvertReport:
    """Converts; what is ambiguous is asked on a terminal, and is an error elsewhere."""
    from afina.data.convert import convert_file

    while True:
        try:
            with file_bar("Converting") as progress:
                return convert_file(source, to, options, progress)
        except InvalidRequest as error:
            field = error.param or ""
            asked = field in _QUESTIONS and getattr(options, field, "") is None
            if not asked or not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            tell(error.one_line())
            answer = typer.prompt(_QUESTIONS[field], err=True)
            options = replace(options, **{field: answer})


def _show_conversion(report: ConvertReport, to: Path) -> None:
    read = [report.format if report.layout == "columns" else f"{report.format} ({report.layout})"]
    if report.encoding:
        why = f" ({report.encoding_reason})" if report.encoding_reason else ""
        read.append(f"{report.encoding}{why}")
    if report.sheet:
        read.append(f"sheet {report.sheet}")
    more = len(report.columns) - _COLUMNS
    columns = ", ".join(report.columns[:_COLUMNS]) + (f" and {more} more" if more > 0 else "")
    facts = {"read": ", ".join(read), "columns": columns}
    facts["rows"] = f"{in_count(report.rows_in)} read, {in_count(report.rows_out)} written"
    if report.rows_joined:
        facts["joined"] = f"{in_count(report.rows_joined)} rows to conversations that others began"
    if report.dropped:
        reasons = (f"{count} {reason}" for reason, count in report.dropped.items())
        facts["dropped"] = ", ".join(reasons)
    facts["written"] = str(to)
    print_facts(facts)
    for note in report.notes:
        tell(note)
