"""`afina data`: convert, check, split, redact and estimate on this machine, without a server.

The server's own stages call the same functions, so the verdict here is the verdict there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afina.cli import data_check, data_estimate, data_redact
from afina.cli.file_bar import file_bar
from afina.cli.options import JsonOption
from afina.cli.terminal import in_count, print_facts, print_json, tell

if TYPE_CHECKING:
    from afina.data.convert import ConvertReport

app = typer.Typer(
    help="Make training files from tables, check them, and see what they cost.",
    no_args_is_help=True,
)


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
    with file_bar("Converting") as progress:
        report = convert_file(source, to, options, progress)
    if json:
        from afina.domain.codec import encode

        print_json(encode(report))
        return
    _show_conversion(report, to)


app.command()(data_check.check)
app.command()(data_estimate.estimate)
app.command()(data_redact.redact)
app.command()(data_redact.restore)


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
