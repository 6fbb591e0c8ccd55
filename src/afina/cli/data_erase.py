"""`afina data erase`: find one customer's rows and all that was made of them, and delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.options import DataOption, JsonOption, YesOption, load_settings
from afina.cli.terminal import agreed, print_json, print_table, tell

if TYPE_CHECKING:
    from afina.service.erasing import Erased, Traces

_SHOWN_LINES = 8


def erase(
    match: Annotated[
        list[str],
        typer.Option(metavar="TEXT", help="What the rows hold, such as an address; repeatable."),
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what is found; without it, it is only shown.")
    ] = False,
    yes: YesOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Find the files, drafts, jobs, tuned models and kept answers that hold a text or were made of
    rows that do; with --delete, delete them, and write training files anew without those rows."""
    from afina.service.erasing import erase as erase_traces
    from afina.service.erasing import find_traces
    from afina.service.keys import authenticate
    from afina.service.platform import Platform

    settings = load_settings(data)
    platform = Platform.open(settings)
    try:
        caller = authenticate(platform, settings.key_for_commands())
        traces = find_traces(platform, caller, match)
        if not json:
            _show(traces)
        done: Erased | None = None
        if delete and not traces.is_empty:
            if not agreed("Delete all of this for good?", yes or json):
                raise typer.Exit(1)
            done = erase_traces(platform, caller, traces)
    finally:
        platform.close()
    if json:
        print_json(_as_json(traces, done))
    elif done is not None:
        _tell_done(done)


def _show(traces: Traces) -> None:
    if traces.is_empty:
        print("Nothing here holds it.")
        return
    rows = [
        ("file", trace.file.id, f"{trace.file.filename}: lines {_lines(trace.lines)}")
        for trace in traces.files
    ]
    rows += [("draft", draft.id, draft.filename) for draft in traces.drafts]
    rows += [
        ("job", job.id, f"{job.status.value}, trained on {job.training_file}")
        for job in traces.jobs
    ]
    rows += [("model", name, "made of those rows") for name in traces.models]
    rows += [("stored completion", id, "") for id in traces.completions]
    rows += [("response", id, "") for id in traces.responses]
    print_table(("what", "id", "why"), rows)


def _lines(lines: tuple[int, ...]) -> str:
    shown = ", ".join(str(number) for number in lines[:_SHOWN_LINES])
    more = len(lines) - _SHOWN_LINES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _tell_done(done: Erased) -> None:
    for old, new in done.written:
        print(f"{old} is deleted{f'; its other rows are {new}' if new else ''}.")
    for job in done.waiting:
        print(f"{job} is still at work or read: run this again a little later.")
    if not done.is_log_empty:
        print("The database's log was being read and may hold it until it is written over.")
    tell("Backups hold it still, and so does what was downloaded from here.")


def _as_json(traces: Traces, done: Erased | None) -> dict[str, Any]:
    return {
        "files": [
            {"id": t.file.id, "filename": t.file.filename, "lines": list(t.lines)}
            for t in traces.files
        ],
        "drafts": [draft.id for draft in traces.drafts],
        "jobs": [job.id for job in traces.jobs],
        "models": list(traces.models),
        "stored_completions": list(traces.completions),
        "responses": list(traces.responses),
        "deleted": done is not None,
        "successors": {} if done is None else dict(done.written),
        "waiting": [] if done is None else list(done.waiting),
        "log_emptied": None if done is None else done.is_log_empty,
    }
