"""`afina data moderate`: which rows of a file moderation flags, before any job."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from afina.cli.file_bar import file_bar
from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_count, print_facts, print_json, print_table, tell
from afina.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from afina.data.moderation.report import ModerationReport
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
    with 1 where a job with these settings would be refused, and where rows hold no text that can
    be read, because those were not judged."""
    from afina.data.moderation.report import Rules, moderate_file, write_others
    from afina.data.targets import check_targets
    from afina.domain.codec import encode

    _refuse_without_texts(path)
    check_targets(path, clean)
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
        write_others(path, clean, flagged)
    if json:
        print_json(encode(report))
    else:
        _show(report)
    if report.flagged_rows:
        tell(_what_to_do(report, path, clean))
    if report.refused:
        tell(
            f"A job on this file would be refused: {in_count(report.counted_rows)} of "
            f"{in_count(report.rows)} rows are flagged under quarantine or block, more than the "
            f"{set_.max_flagged_share:.2%} that moderation.max_flagged_share allows."
        )
    if report.unread_rows:
        tell(
            f"{in_count(report.unread_rows)} of {in_count(report.rows)} rows hold no text that can "
            f"be read, line {report.first_unread} the first: they were not judged. "
            f"`afina data check {quote(str(path))}` names what is wrong with them."
        )
    if report.refused or report.unread_rows:
        raise typer.Exit(1)


def _show(report: ModerationReport) -> None:
    facts = {
        "model": report.model,
        "rows": in_count(report.rows),
        "flagged": in_count(report.flagged_rows),
    }
    print_facts(facts | {f"  {name}": in_count(n) for name, n in report.categories.items()})
    if report.messages:
        print_table(
            ("line", "message", "category", "score", "policy"),
            (
                (str(m.line), m.where, m.category, f"{m.score:.2f}", m.policy)
                for m in report.messages[:_SHOWN]
            ),
        )
    if len(report.messages) > _SHOWN:
        tell(f"… and {in_count(len(report.messages) - _SHOWN)} more: see --json.")


def _what_to_do(report: ModerationReport, path: Path, clean: Path | None) -> str:
    left_out, flagged = report.left_out, report.flagged_rows
    ways = f"{clean} holds the rows that are not flagged"
    if clean is None:
        ways = f"`afina data moderate {quote(str(path))} --clean OUT` writes the others"
    ways += "; policies and thresholds stand under [moderation] in afina.toml."
    if report.refused:
        return f"Drop or mend the flagged rows. {ways}"
    done = f"A job would leave out {in_count(left_out)} of the flagged rows" if left_out else ""
    if flagged > left_out:
        stay = f"train on {in_count(flagged - left_out)} of the flagged rows"
        done = f"{done} and {stay}" if done else f"A job would {stay}"
    return f"{done}. {ways}"


def _refuse_without_texts(path: Path) -> None:
    """A file of another form has no flagged row either, which must not look like praise."""
    from afina.data.hints import conversion_hint
    from afina.data.moderation.report import has_texts

    if has_texts(path):
        return
    if path.stat().st_size == 0:
        raise InvalidRequest(f"{path.name} is empty.", remedy="Give a file with rows.")
    raise InvalidRequest(
        f"{path.name} has no row whose text can be read, so nothing was judged.",
        remedy=conversion_hint(path)
        or f"`afina data check {quote(str(path))}` names what is wrong with it.",
    )


def _moderator(settings: Settings) -> Moderator:
    from afina.service.moderation import Moderator, moderator_of

    if settings.moderation.backend != "local":
        return moderator_of(settings)
    from afina.cli.encoders import pull_encoder
    from afina.serving.local_moderation import OwnBackend

    return Moderator(OwnBackend(pull_encoder(settings)), settings.moderation.thresholds)
