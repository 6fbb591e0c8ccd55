"""`afina data estimate`: what a job would take, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.data_check import ModelOption, checked, find_or_default
from afina.cli.options import DataOption, JsonOption, load_settings
from afina.cli.terminal import in_count, print_facts, print_json

if TYPE_CHECKING:
    from afina.domain.models import BaseModel


def estimate(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A chat JSONL file.")],
    model: ModelOption = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=50, help="Epochs; by default auto.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=256, help="Rows a step; by default auto.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Tokens, steps, time, memory and money of a job with this file, before it starts."""
    from afina.data.estimate import estimate as estimate_job
    from afina.data.estimate import with_memory
    from afina.data.hints import conversion_hint
    from afina.domain.auto import resolve
    from afina.domain.codec import encode
    from afina.domain.jobs import Hyperparameters
    from afina.errors import InvalidRequest, ModelNotFound
    from afina.service.pricing import prices_of
    from afina.service.rates import rate_for
    from afina.text.renderer import Renderer

    settings = load_settings(data)
    base = find_or_default(settings, model)
    if base is None:
        raise ModelNotFound(
            "An estimate needs a base model, and none is named.", remedy="Name one with --model."
        )
    report = checked(settings, path, base)
    if report.rows_usable == 0 and (hint := conversion_hint(path)) is not None:
        raise InvalidRequest(f"{path.name} has no usable row.", remedy=hint)
    asked = Hyperparameters(epochs or "auto", batch_size or "auto")
    rows = max(1, report.training_rows)
    step_tokens = report.tokens / rows * int(resolve(asked, rows).batch_size)
    result = estimate_job(
        path,
        Renderer.load(Path(base.path)),
        report=report,
        hyperparameters=asked,
        prices=prices_of(settings, base.id),
        rate=rate_for(settings, base, step_tokens=step_tokens),
    )
    result = with_memory(result, base)
    if json:
        print_json(encode(result) | {"model": base.id})
        return
    print_facts(_estimate_facts(result, base))


def _estimate_facts(result: Any, base: BaseModel) -> dict[str, str]:
    from afina.cli.terminal import in_dollars, in_time
    from afina.domain.prices import dollars

    dropped = f", {in_count(result.rows_dropped)} not usable" if result.rows_dropped else ""
    facts = {
        "model": base.id,
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
        facts["memory"] = f"{size} (± {result.memory_error:.0%}, LoRA as it is by default)"
    facts["cost"] = in_dollars(dollars(result.cost_pico))
    return facts
