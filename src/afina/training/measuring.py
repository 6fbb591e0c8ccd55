"""What a step says of the run: its metrics, and what an epoch's validation decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from afina.domain.methods import EarlyStopping
from afina.domain.runs import RunSpec
from afina.training.bins import Rows
from afina.training.checkpoints import RunState
from afina.training.evaluation import batch_rows
from afina.training.steps import Stepper, StepResult


def metrics_of(
    spec: RunSpec, stepper: Stepper, validation: Rows | None, step: int, result: StepResult
) -> dict[str, float]:
    """A step's `train_` metrics, with `valid_` ones of some validation rows every so many steps and
    `full_valid_` ones of all at the end of an epoch."""
    metrics = {f"train_{name}": value for name, value in result.metrics().items()}
    if validation is None:
        return metrics
    count = stepper.count(validation)
    interval = spec.validation_interval_steps
    if step % interval == 0 or step == 1 or stepper.ends_epoch(step):
        chosen = batch_rows(count, spec.validation_batch_rows, spec.seed, step // interval)
        found = stepper.evaluate(validation, chosen)
        metrics |= {f"valid_{name}": value for name, value in found.items()}
    if stepper.ends_epoch(step):
        found = stepper.evaluate(validation, range(count))
        metrics |= {f"full_valid_{name}": value for name, value in found.items()}
    return metrics


def judged(
    state: RunState, stopping: EarlyStopping | None, step: int, metrics: Mapping[str, float]
) -> RunState:
    """The state with what an epoch's validation says about stopping and the best epoch."""
    loss, lowest = metrics.get("full_valid_loss"), state.best_loss
    if loss is None:
        return state
    least = (stopping or EarlyStopping()).min_delta
    fell = lowest is None or loss < lowest - least
    after = replace(state, stale_epochs=0 if fell else state.stale_epochs + 1)
    if lowest is None or loss < lowest:
        after = replace(after, best_loss=loss, best_step=step)
    return after
