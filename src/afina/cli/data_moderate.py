"""`afina data moderate`: which rows of a file moderation flags, before any job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afina.cli.file_bar import file_bar
from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from afina.service.moderation import Moderator
    from afina.settings import Settings

_SHOWN = 20


def moderate(
    path: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A training file, JSONL.")
    ],
    clean: Annotated[
        Path | None,
        typer.Option("--clean", metavar="OUT", help="Write the rows that are not flagged here."),
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Name the rows that moderation flags: line, message, category and score, never the text. Ends
    with 1 where a job with these settings would be refused."""
    from afina.data.moderation.report import Rules, moderate_file
    from afina.domain.codec import encode

    settings = load_settings(data)
    moderator = _moderator(settings)

    def judge(texts: Sequence[str]) -> list[Mapping[str, float]]:
        return [verdict.categories for verdict in moderator.verdicts(texts)]

    set_ = settings.moderation
    rules = Rules(set_.policy, set_.categories, set_.max_flagged_share)
    flagged: set[int] = set()
    with file_bar("Moderating") as progress:
        report = moderate_file(path, judge, moderator.model, rules, progress, flagged.add)
    if clean is not None:
        _write_others(path, clean, flagged)
    if json:
        print_json(encode(report))
    else:
        print_facts(
            {
                "model": report.model,
                "rows": str(report.rows),
                "flagged": str(report.flagged_rows),
                **{f"  {name}": str(count) for name, count in report.categories.items()},
            }
        )
        if report.messages:
            print_table(
                ("line", "message", "category", "score", "policy"),
                (
                    (str(m.line), m.where, m.category, f"{m.score:.2f}", m.policy)
                    for m in report.messages[:_SHOWN]
                ),
            )
        if len(report.messages) > _SHOWN:
            tell(f"… and {len(report.messages) - _SHOWN} more: see --json.")
    if report.refused:
        tell(
            f"A job on this file would be refused: more than {set_.max_flagged_share:.0%} of its "
            "rows are flagged under quarantine or block."
        )
        raise typer.Exit(1)


def _write_others(path: Path, clean: Path, flagged: set[int]) -> None:
    """The lines that are not flagged, byte for byte, cut where the report counts lines."""
    with (
        path.open(encoding="latin-1", newline="") as lines,
        clean.open("w", encoding="latin-1", newline="") as kept,
    ):
        kept.writelines(line for number, line in enumerate(lines, 1) if number not in flagged)


def _moderator(settings: Settings) -> Moderator:
    from afina.service.moderation import Moderator, moderator_of

    if settings.moderation.backend != "local":
        return moderator_of(settings)
    from afina.cli.encoders import pull_encoder
    from afina.serving.local_moderation import OwnBackend

    return Moderator(OwnBackend(pull_encoder(settings)), settings.moderation.thresholds)
