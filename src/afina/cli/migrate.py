"""`afina migrate`: bring the jobs of another account here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.options import (
    DataOption,
    JsonOption,
    ServerOption,
    YesOption,
    load_settings,
    open_client,
)
from afina.cli.terminal import (
    agreed,
    in_count,
    in_dollars,
    in_time,
    print_json,
    print_table,
    tell,
)

if TYPE_CHECKING:
    from afina.cli.moving import Line, Move
    from afina.settings import Settings

app = typer.Typer(help="Move in from another account.", no_args_is_help=True)


@app.callback()
def top() -> None:
    """Move in from another account."""


@app.command("openai")
def from_openai(
    key: Annotated[
        str | None,
        typer.Option(help="The account's API key; others see it in the list of processes."),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A file that holds the key; - reads standard input."),
    ] = None,
    base_url: Annotated[
        str, typer.Option(help="The account's API, as the official client has it.")
    ] = "https://api.openai.com/v1",
    folder: Annotated[
        Path, typer.Option(help="Where the files and the table of bases are kept.")
    ] = Path("moving-in"),
    job: Annotated[
        list[str] | None,
        typer.Option(metavar="JOB_ID", help="Only this job, in any state; may be repeated."),
    ] = None,
    same_numbers: Annotated[
        bool,
        typer.Option("--same-numbers", help="Keep batch size and learning rate, too."),
    ] = False,
    completions: Annotated[
        bool, typer.Option(help="Take stored completions along as training files.")
    ] = True,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and create nothing.")] = False,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Read an OpenAI-shaped account, download its training files, and create its jobs here.

    Nothing is changed there. Run it again as often as you like: it goes on where it stopped.
    """
    from afina.cli.moving import Move, summary, with_estimates
    from afina.service.moving_plan import Wishes
    from afina.service.moving_source import Source

    settings = load_settings(data, server)
    settings.check_online("The other account cannot be read")
    source = Source(base_url, _key(key, key_file))
    try:
        with open_client(data, server) as client:
            move = Move(source, client, folder, tell)
            lines = move.plan(Wishes(tuple(job or ()), same_numbers))
            lines = with_estimates(lines, lambda line: _estimate(settings, line))
            if not json:
                _show(lines, move)
            stored: dict[str, Any] = {}
            wanted = any(line.left_out is None for line in lines)
            go_on = not plan and (json or not wanted or agreed("Create these jobs?", yes))
            if go_on:
                move.create(lines)
                stored = _completions(move) if completions else {}
    except KeyboardInterrupt:
        tell(f"Left; what came so far is in {folder}. The same command goes on from there.")
        raise
    finally:
        source.close()
    if json:
        print_json({"jobs": [_as_json(line) for line in lines], "stored_completions": stored})
        return
    if go_on:
        _tell_result(lines, stored)
        tell(", ".join(f"{count} {what}" for what, count in sorted(summary(lines).items())) + ".")


def _key(key: str | None, key_file: str | None) -> str:
    if (key is None) == (key_file is None):
        raise typer.BadParameter("give the account's key with either --key-file or --key")
    if key is not None:
        return key.strip()
    if key_file == "-":
        return sys.stdin.readline().strip()
    try:
        return Path(str(key_file)).read_text().strip()
    except OSError as error:
        raise typer.BadParameter(f"{key_file} cannot be read: {error.strerror}") from None


def _estimate(settings: Settings, line: Line) -> dict[str, Any] | None:
    """What the job would take, where its base is on this machine."""
    from afina.cli.data_check import checked, find_or_default
    from afina.domain.codec import encode
    from afina.domain.jobs import Hyperparameters
    from afina.domain.methods import Extension
    from afina.errors import ModelNotFound
    from afina.service.estimates import Wanted, plan_file
    from afina.service.tuning import settle
    from afina.text.renderer import Renderer

    if line.job.parent is not None or line.job.model is None:
        return None
    try:
        base = find_or_default(settings, line.job.model)
    except ModelNotFound:
        return None
    if base is None:
        return None
    method = line.job.body["method"]
    epochs = method[method["type"]]["hyperparameters"].get("n_epochs", "auto")
    path = line.files["training_file"]
    tuning = settle(settings, base, Extension(), None, has_validation=False).tuning
    report = checked(settings, path, base)
    wanted = Wanted(Hyperparameters(epochs), tuning, method["type"])
    found = plan_file(settings, base, path, Renderer.load(Path(base.path)), report, wanted)
    told: dict[str, Any] = encode(found.estimate)
    return told


def _show(lines: list[Line], move: Move) -> None:
    wanted = [line for line in lines if line.left_out is None]
    if wanted:
        print_table(
            (
                "job there",
                "tuned model there",
                "tuned here from",
                ">rows",
                ">tokens",
                ">time",
                ">cost",
            ),
            [_row(line) for line in wanted],
        )
        for line in wanted:
            for note in line.job.notes:
                print(f"{line.job.source}: {note}")
        _show_total(wanted)
    for line in lines:
        if line.left_out is not None:
            print(f"{line.job.source} is left out: {line.left_out}")
    if not lines:
        print("The account has no fine-tuning jobs.")
    tell(f"Bases are paired in {move.folder / 'bases.toml'}; edit it and run this again.")


def _row(line: Line) -> tuple[str, ...]:
    from afina.domain.prices import dollars

    job, found = line.job, line.estimate
    begin = f"the tune of {job.parent}" if job.parent else job.model or ""
    if found is None:
        return (job.source, job.tuned or "–", begin, "–", "–", "–", "–")
    return (
        job.source,
        job.tuned or "–",
        begin,
        in_count(found["rows"]),
        in_count(found["trained_tokens"]),
        "–" if found["seconds"] is None else in_time(found["seconds"]),
        in_dollars(dollars(found["cost_pico"])),
    )


def _show_total(lines: list[Line]) -> None:
    known = [line.estimate for line in lines if line.estimate is not None]
    times = [found["seconds"] for found in known if found["seconds"] is not None]
    if len(known) > 1 and len(times) == len(known):
        tokens = sum(found["trained_tokens"] for found in known)
        print(
            f"{len(known)} jobs, {in_count(tokens)} tokens, about {in_time(sum(times))} one after "
            "the other."
        )


def _completions(move: Move) -> dict[str, Any]:
    from afina.errors import NotFound
    from afina.service.moving_source import SourceRefused

    try:
        return move.take_completions()
    except (NotFound, SourceRefused) as error:
        tell(f"Stored completions are not taken along. {error.message}")
        return {}


def _tell_result(lines: list[Line], stored: dict[str, Any]) -> None:
    for line in lines:
        if line.made is not None:
            made = line.made
            model = made.get("fine_tuned_model")
            print(
                f"{line.job.source} → {made['id']} {made['status']}{f' {model}' if model else ''}"
            )
        elif line.waits is not None:
            print(f"{line.job.source} {line.waits}")
        elif line.left_out is not None and line.left_out.startswith("refused here"):
            print(f"{line.job.source} is {line.left_out}")
    for model, told in stored.items():
        less = f", {told['left_out']} cut or empty ones left out" if told["left_out"] else ""
        print(f"stored completions of {model}: {told['rows']} rows{less} → {told.get('file', '–')}")


def _as_json(line: Line) -> dict[str, Any]:
    made = line.made or {}
    return {
        "source": line.job.source,
        "source_model": line.job.tuned,
        "base": line.job.model,
        "parent": line.job.parent,
        "estimate": line.estimate,
        "notes": list(line.job.notes),
        "left_out": line.left_out,
        "waits": line.waits,
        "job": made.get("id"),
        "status": made.get("status"),
        "fine_tuned_model": made.get("fine_tuned_model"),
    }
