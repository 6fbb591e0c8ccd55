"""`afina data estimate`: what a job would take, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli import job_body
from afina.cli.data_check import ModelOption, checked, find_or_default
from afina.cli.job_facts import tuning_facts
from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_count, print_facts, print_json
from afina.domain.methods import Extension

if TYPE_CHECKING:
    from afina.domain.models import BaseModel
    from afina.service.estimates import JobEstimate
    from afina.settings import Settings


def estimate(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file.")],
    model: ModelOption = None,
    epochs: job_body.EpochsOption = None,
    batch_size: job_body.BatchOption = None,
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
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Tokens, steps, time, memory and money of a job with this file, before it starts."""
    from afina.domain.codec import encode

    adapters = (rank, alpha, dropout, target_modules, rank_stabilised or None, base_bits)
    body = job_body.asked_of(
        method,
        (epochs, batch_size, None, beta),
        (tuning, *adapters, layers, norm_and_head or None),
    )
    settings = load_settings(data)
    found = _found(settings, find_or_default(settings, model), path, body)
    if json:
        extension = Extension(found.tuning).shown()["tuning"]
        print_json(
            encode(found.estimate)
            | {"model": found.base.id, "method": found.method, "tuning": extension}
        )
        return
    print_facts(_estimate_facts(found))


def _found(
    settings: Settings, base: BaseModel | None, path: Path, body: dict[str, Any]
) -> JobEstimate:
    """As for a job with this body."""
    from afina.api.requests import JobCreate, job_request
    from afina.data.hints import conversion_hint
    from afina.errors import InvalidRequest, ModelNotFound
    from afina.service.estimates import Wanted, check_kind, plan_file
    from afina.service.job_request import check_request
    from afina.service.refusals import parse
    from afina.service.tuning import settle
    from afina.text.renderer import Renderer

    request = job_request(parse(JobCreate, {"model": "base", "training_file": "file", **body}))
    check_request(request)
    if base is None:
        raise ModelNotFound(
            "An estimate needs a base model, and none is named.", remedy="Name one with --model."
        )
    settled = settle(settings, base, request.extension, None, has_validation=False)
    report = checked(settings, path, base)
    if report.rows_usable == 0 and (hint := conversion_hint(path)) is not None:
        raise InvalidRequest(f"{path.name} has no usable row.", remedy=hint)
    if report.rows_usable:
        check_kind(report.kind, request.method)
    wanted = Wanted(request.hyperparameters, settled.tuning, request.method)
    return plan_file(settings, base, path, Renderer.load(Path(base.path)), report, wanted)


def _estimate_facts(found: JobEstimate) -> dict[str, str]:
    from afina.cli.terminal import in_dollars, in_time
    from afina.domain.prices import dollars

    result = found.estimate
    dropped = f", {in_count(result.rows_dropped)} not usable" if result.rows_dropped else ""
    facts = {
        "model": found.base.id,
        "method": found.method,
        **tuning_facts(Extension(found.tuning).shown()),
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
        about = f"± {result.seconds_error:.0%} where nothing else runs; {result.seconds_from}"
        training = in_time(max(0.0, result.seconds - result.overhead_s))
        facts["time"] = f"about {in_time(result.seconds)} for the whole job ({about})"
        facts["of it training"] = (
            f"about {training}; the rest is loading the model, saving, comparing and publishing"
        )
    if result.memory_bytes is not None:
        size = f"about {result.memory_bytes / 1e9:.1f} GB"
        facts["memory"] = f"{size} (± {result.memory_error:.0%})"
    facts["cost"] = in_dollars(dollars(result.cost_pico))
    return facts
