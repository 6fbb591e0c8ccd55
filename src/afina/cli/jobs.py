"""`afina jobs`: create fine-tuning jobs, watch them, and look at what they did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli import job_body, job_facts, job_rows
from afina.cli.job_body import RATE, TUNING_FIELDS, given, named
from afina.cli.job_files import bringing
from afina.cli.options import (
    DataOption,
    JsonOption,
    ServerOption,
    YesOption,
    open_client,
)
from afina.cli.terminal import (
    agreed,
    at,
    in_count,
    print_facts,
    print_json,
    print_table,
    tell,
)

if TYPE_CHECKING:
    from afina.cli.client import Client

app = typer.Typer(help="Create fine-tuning jobs and follow them.", no_args_is_help=True)

_JOBS = "/v1/fine_tuning/jobs"
JobArgument = Annotated[str, typer.Argument(metavar="JOB_ID", help="A job's id, `ftjob-…`.")]


@app.command()
def create(
    model: job_body.ModelOption,
    file: job_body.FileOption,
    validation: job_body.ValidationOption = None,
    suffix: job_body.SuffixOption = None,
    epochs: job_body.EpochsOption = None,
    batch_size: job_body.BatchOption = None,
    learning_rate_multiplier: job_body.RateOption = None,
    method: job_body.MethodOption = None,
    beta: job_body.BetaOption = None,
    tuning: job_body.TuningOption = None,
    rank: job_body.RankOption = None,
    alpha: job_body.AlphaOption = None,
    dropout: job_body.DropoutOption = None,
    target_modules: job_body.ModulesOption = None,
    rank_stabilised: job_body.StabilisedOption = False,
    base_bits: job_body.BitsOption = None,
    layers: job_body.LayersOption = None,
    norm_and_head: job_body.NormAndHeadOption = False,
    early_stopping: job_body.StoppingOption = None,
    min_delta: job_body.DeltaOption = None,
    best_checkpoint: job_body.BestOption = False,
    gate: job_body.GateOption = None,
    gate_suite: job_body.SuiteOption = None,
    seed: job_body.SeedOption = None,
    metadata: job_body.MetadataOption = None,
    wandb: job_body.WandbOption = None,
    mlflow: job_body.MlflowOption = None,
    idempotency_key: job_body.KeyOption = None,
    watch: job_body.WatchOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Create a job; prints its id."""
    body: dict[str, Any] = {"model": model}
    body |= given(suffix=suffix, seed=seed, metadata=_pairs(metadata))
    rate = learning_rate_multiplier
    numbers = (epochs, batch_size, rate, beta)
    body |= job_body.method_of(method, named(("n_epochs", "batch_size", RATE, "beta"), numbers))
    adapters = (rank, alpha, dropout, target_modules, rank_stabilised or None, base_bits)
    tuned = named(TUNING_FIELDS, (tuning, *adapters, layers, norm_and_head or None))
    wished = given(policy=gate, suite=gate_suite)
    body |= job_body.integrations_of(wandb, mlflow)
    body |= job_body.extension_of(tuned, early_stopping, min_delta, best_checkpoint, wished)
    with open_client(data, server) as client:
        with bringing(client) as file_id:
            body["training_file"] = file_id(file)
            if validation is not None:
                body["validation_file"] = file_id(validation)
            headers = {"idempotency_key": idempotency_key} if idempotency_key else {}
            job = client.post(_JOBS, body, **headers)
        if watch:
            if not json:
                print(job["id"], flush=True)
            _follow(client, job["id"], json)
            return
    _show_new(job, json)


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with open_client(data, server) as client:
        found = _first(client.every(_JOBS), limit)
    if json:
        print_json(found)
        return
    print_table(
        ("id", "status", "base", "tuned model", ">tokens", "created"),
        (
            (
                job["id"],
                job["status"],
                job["model"],
                job["fine_tuned_model"] or "–",
                in_count(job["trained_tokens"]),
                at(job["created_at"]),
            )
            for job in found
        ),
    )


@app.command()
def get(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show one job; of one that has ended, what was expected beside what it took."""
    with open_client(data, server) as client:
        job = client.get(f"{_JOBS}/{job_id}")
        asks = job["status"] == "succeeded" and not json
        said = client.get(f"{_JOBS}/{job_id}/events", limit=100)["data"] if asks else []
    if json:
        print_json(job)
    else:
        print_facts(job_facts.of(job) | job_facts.foresight(said))


@app.command()
def events(
    job_id: JobArgument,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the newest; all where not given.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Print a job's events, oldest first."""
    with open_client(data, server) as client:
        found = _first(client.every(f"{_JOBS}/{job_id}/events"), limit)
    found.reverse()
    if json:
        print_json(found)
        return
    for event in found:
        print(f"{at(event['created_at'])}  {event['level']:5}  {event['message']}")


@app.command()
def checkpoints(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List a job's checkpoints, latest first; each can be talked to by its name."""
    with open_client(data, server) as client:
        found = list(client.every(f"{_JOBS}/{job_id}/checkpoints"))
    if json:
        print_json(found)
        return
    print_table(
        (">step", "model", ">loss", ">accuracy", ">validation loss"),
        (
            (
                str(point["step_number"]),
                point["fine_tuned_model_checkpoint"],
                _metric(point, "train_loss"),
                _metric(point, "train_mean_token_accuracy"),
                _metric(point, "full_valid_loss"),
            )
            for point in found
        ),
    )


app.command()(job_rows.suspects)


@app.command()
def cancel(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Cancel a job; what it wrote so far stays."""
    _ask(job_id, "cancel", server, data, json)


@app.command()
def pause(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Pause a job at its next step; what it learned so far can be used meanwhile."""
    _ask(job_id, "pause", server, data, json)


@app.command()
def resume(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused job go on from where it stood."""
    _ask(job_id, "resume", server, data, json)


@app.command()
def watch(
    job_id: JobArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Follow a job to its end; Ctrl-C leaves the job alone. Exit code 1 unless it succeeds.

    With --json every event is a line of JSON, and the job is the last line.
    """
    with open_client(data, server) as client:
        _follow(client, job_id, json)


@app.command()
def delete(
    job_id: JobArgument,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a job that is over: its record, run directory, checkpoints and results."""
    if not agreed(f"Delete {job_id} for good?", yes):
        raise typer.Exit(1)
    with open_client(data, server) as client:
        gone = client.delete(f"/v1/afina/jobs/{job_id}")
    if json:
        print_json(gone)
    else:
        tell(f"{job_id} is deleted; models that came out of it stay.")


def _show_new(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    print(job["id"])
    tell(f"{job['status']}. Follow it: afina jobs watch {job['id']}")


def _ask(job_id: str, verb: str, server: str | None, data: Path | None, json: bool) -> None:
    with open_client(data, server) as client:
        job = client.post(f"{_JOBS}/{job_id}/{verb}")
    if json:
        print_json(job)
    else:
        wish = (job.get("afina") or {}).get("wish")
        tell(f"{job_id}: {job['status']}{f', to {wish} at its next step' if wish else ''}.")


def _follow(client: Client, job_id: str, as_json: bool) -> None:
    import json

    from afina.cli.watch import conclude, state_of, watch_job

    try:
        job = watch_job(client, job_id, as_json)
    except KeyboardInterrupt:
        tell(f"Left; the job goes on. See it again: afina jobs watch {job_id}")
        raise
    if as_json:
        print(json.dumps(job, ensure_ascii=False))
    conclude(job, state_of(client, job))


def _pairs(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    pairs = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text} is not of the form KEY=VALUE")
        pairs[key] = value
    return pairs


def _first(items: Any, limit: int | None) -> list[dict[str, Any]]:
    from itertools import islice

    return list(islice(items, limit))


def _metric(point: dict[str, Any], name: str) -> str:
    value = point["metrics"].get(name)
    return "–" if value is None else f"{value:.3f}"
