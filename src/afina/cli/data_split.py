"""`afina data split`: training and validation rows that share nothing."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afina.cli.options import JsonOption
from afina.cli.terminal import in_count, print_facts, print_json, tell

if TYPE_CHECKING:
    from afina.data.split import SplitReport


class By(enum.StrEnum):
    """What decides where a row goes."""

    CONTENT = "content"
    GROUP = "group"
    ANSWER = "answer"


def split(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file.")],
    training: Annotated[Path, typer.Option("--training", metavar="JSONL", help="To write.")],
    validation: Annotated[Path, typer.Option("--validation", metavar="JSONL", help="To write.")],
    share: Annotated[float, typer.Option(help="The share of the rows for validation.")] = 0.1,
    by: Annotated[
        By,
        typer.Option(
            help="content: rows that ask the same stay together; group: those with the same "
            "--group do; answer: each answer keeps its share on both sides."
        ),
    ] = By.CONTENT,
    group: Annotated[str | None, typer.Option(help="The key that names a row's group.")] = None,
    seed: Annotated[int, typer.Option(help="Another number, another split.")] = 0,
    json: JsonOption = False,
) -> None:
    """Split a file by the hash of what rows ask, so that no copy stands on both sides."""
    from afina.data.hints import conversion_hint
    from afina.data.split import SplitOptions, split_file
    from afina.domain.codec import encode

    report = split_file(path, training, validation, SplitOptions(share, by, group, seed))
    if json:
        print_json(encode(report))
    else:
        _show(report, by, training, validation)
    if report.training + report.validation == 0:
        tell("Nothing was written.")
        tell(conversion_hint(path) or f"{path.name} has no line that is a JSON object.")
        raise typer.Exit(1)
    for name, count in (("training", report.training), ("validation", report.validation)):
        if count == 0:
            tell(f"No row went to {name}, and no job takes an empty file: {_why(report, by)}")
    rows = report.training + report.validation
    if report.training and report.validation and not _is_near(report.validation, share * rows, by):
        tell(
            f"Validation has {report.validation / rows:.1%} of the rows, and {share:.1%} were "
            f"asked for: {_why_far(by)}"
        )


def _why(report: SplitReport, by: By) -> str:
    if by == "answer":
        return "no answer stands in so many rows that both sides get some. Split by content."
    if report.groups == 1:
        one = "all rows are of one group" if by == "group" else "all rows ask the same"
        return f"{one}, which stays together. Split by something else."
    return "there are too few rows for this --share. Give another --share, or another --seed."


def _is_near(rows: int, asked: float, by: By) -> bool:
    """Whether chance explains it: hashes draw a side for each row, but none where each answer
    gives its share."""
    chance = 0.0 if by == "answer" else 3 * math.sqrt(asked)
    return abs(rows - asked) <= max(1.0, asked / 5, chance)


def _why_far(by: By) -> str:
    if by == "answer":
        return (
            "an answer of one row is for training, and one of few rows gives one at least. Split "
            "by content where answers are no classes."
        )
    what = "a group stays together" if by == "group" else "rows that ask the same stay together"
    return f"{what}, however many they are. Give another --share, or another --seed."


def _show(report: SplitReport, by: By, training: Path, validation: Path) -> None:
    facts = {
        "rows": in_count(report.rows),
        "training": f"{in_count(report.training)}, {training}",
        "validation": f"{in_count(report.validation)}, {validation}",
        f"different by {by}": in_count(report.groups),
    }
    if report.dropped:
        facts["dropped"] = f"{in_count(report.dropped)} lines that are no JSON objects"
    print_facts(facts)
