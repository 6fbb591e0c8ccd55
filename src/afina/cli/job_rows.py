"""`afina jobs suspects`: the training rows that a job could hardly learn, the worst first.

They come from the job's own `row_losses.csv`; what the rows say comes from the training file, if it
is still there.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.files import decoded
from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import print_json, print_table, tell
from afina.errors import AfinaError, NotFound

if TYPE_CHECKING:
    from afina.cli.client import Client

_FILE = "row_losses.csv"
_SHOWN = 60


def suspects(
    job_id: Annotated[str, typer.Argument(metavar="JOB_ID", help="A job's id, `ftjob-…`.")],
    limit: Annotated[int, typer.Option(min=1, help="How many rows, the worst first.")] = 10,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show the training rows whose loss stayed far above that of rows like them, marked with *, and
    the next ones: a wrong answer perhaps, another language, a broken text."""
    with open_client(data, server) as client:
        job = client.get(f"/v1/fine_tuning/jobs/{job_id}")
        rows = _losses(client, job)
        rows.sort(key=_score, reverse=True)
        said = {} if json else _said(client, job, {int(row["line"]) for row in rows[:limit]})
    if json:
        print_json([_as_numbers(row) for row in rows[:limit]])
        return
    print_table(
        (">row", "", ">score", ">first epoch", ">last epoch", "asked", "answered"),
        (
            (
                row["line"],
                "*" if row["suspect"] == "1" else "",
                row.get("score") or "–",
                row["first_epoch_loss"] or "–",
                row["last_epoch_loss"] or "–",
                *said.get(int(row["line"]), ("–", "–")),
            )
            for row in rows[:limit]
        ),
    )
    found = sum(row["suspect"] == "1" for row in rows)
    tell(f"{found} of {len(rows)} rows are suspects (*).")


def _losses(client: Client, job: Mapping[str, Any]) -> list[dict[str, str]]:
    for file_id in job["result_files"]:
        file = client.get(f"/v1/files/{file_id}")
        if file["filename"] == _FILE:
            content = decoded(file, client.download(f"/v1/files/{file_id}/content"))
            return list(csv.DictReader(content.decode().splitlines()))
    raise NotFound(
        f"The job {job['id']} has no {_FILE}.",
        remedy="Jobs that succeeded have one: look at its status.",
    )


def _score(row: Mapping[str, str]) -> float:
    return float(row.get("score") or row["last_epoch_loss"] or "-inf")


def _as_numbers(row: Mapping[str, str]) -> dict[str, object]:
    return {
        "line": int(row["line"]),
        "suspect": row["suspect"] == "1",
        **{
            name: float(row[name]) if row.get(name) else None
            for name in ("score", "first_epoch_loss", "last_epoch_loss")
        },
        "tokens": int(row["tokens"]),
    }


def _said(client: Client, job: Mapping[str, Any], lines: set[int]) -> dict[int, tuple[str, str]]:
    from afina.service.suspects import beginnings

    try:
        content = client.download(f"/v1/files/{job['training_file']}/content")
    except AfinaError:
        return {}  # deleted since
    found = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if number in lines:
            asked, answered = beginnings(line)
            found[number] = (_short(asked), _short(answered))
    return found


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
