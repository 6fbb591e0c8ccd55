"""The body of a request for a job, from what the command line gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

RATE: Final = "learning_rate_multiplier"
TUNING_FIELDS: Final = (
    "kind",
    "rank",
    "alpha",
    "dropout",
    "target_modules",
    "rank_stabilised",
    "base_bits",
    "layers",
    "norm_and_head",
)

ModelOption = Annotated[
    str, typer.Option(help="The base model to tune or an alias of it; or a tuned one to go on.")
]
FileOption = Annotated[
    str, typer.Option("--file", help="The training file: an id, or a path to upload.")
]
ValidationOption = Annotated[
    str | None, typer.Option(help="The validation file: an id, or a path to upload.")
]
SuffixOption = Annotated[str | None, typer.Option(help="A part of the tuned model's name.")]
EpochsOption = Annotated[int | None, typer.Option(min=1, max=50, help="By default auto.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, max=256, help="Rows a step; by default auto.")
]
RateOption = Annotated[
    float | None, typer.Option(help="Of the base learning rate; by default auto.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="By default random.")]
MetadataOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given several times.")
]
WandbOption = Annotated[
    str | None,
    typer.Option("--wandb", metavar="PROJECT", help="Tell Weights & Biases the metrics."),
]
MlflowOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="EXPERIMENT", help="Tell the MLflow server the metrics."),
]
KeyOption = Annotated[str | None, typer.Option(help="The same key again returns the same job.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")]
TuningOption = Annotated[
    str | None,
    typer.Option(help="What is tuned: lora (by default), dora, full or last_layers."),
]
RankOption = Annotated[int | None, typer.Option(help="Rank of the adapters; by default 16.")]
AlphaOption = Annotated[
    float | None, typer.Option(help="Scale of the adapters; by default twice the rank.")
]
DropoutOption = Annotated[
    float | None, typer.Option(help="Share of the adapters' input left out; by default 0.")
]
ModulesOption = Annotated[
    str | None,
    typer.Option(metavar="NAME,NAME", help="Linear layers with adapters; by default all."),
]
StabilisedOption = Annotated[
    bool, typer.Option("--rank-stabilised", help="Scale by the root of the rank.")
]
BitsOption = Annotated[
    int | None,
    typer.Option(help="4: hold the frozen base in 4 bits while training (QLoRA); by default 16."),
]
LayersOption = Annotated[
    int | None,
    typer.Option(help="How many blocks last_layers tunes; by default the top quarter."),
]
NormAndHeadOption = Annotated[
    bool, typer.Option("--norm-and-head", help="Let last_layers tune final norm and head too.")
]
StoppingOption = Annotated[
    int | None,
    typer.Option(
        "--early-stopping",
        metavar="EPOCHS",
        help="End when the validation loss has not fallen for so many epochs.",
    ),
]
DeltaOption = Annotated[
    float | None,
    typer.Option(
        "--min-delta", help="Of --early-stopping: by how much the loss must fall; by default 0."
    ),
]
BestOption = Annotated[
    bool,
    typer.Option("--best-checkpoint", help="Take the epoch with the lowest validation loss."),
]
GateOption = Annotated[
    str | None, typer.Option("--gate", help="The release gate: off, report (by default) or hold.")
]
SuiteOption = Annotated[
    str | None, typer.Option("--gate-suite", help="What the gate asks: default or full.")
]
MethodOption = Annotated[
    str | None, typer.Option(help="supervised (by default) or dpo.", show_default=False)
]
BetaOption = Annotated[
    float | None, typer.Option(help="Of dpo: how close to stay to the reference; by default 0.1.")
]


def given(**values: Any) -> dict[str, Any]:
    """What has a value."""
    return {name: value for name, value in values.items() if value is not None}


def named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """The names of those that have a value."""
    return given(**dict(zip(names, values, strict=True)))


def method_of(method: str | None, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """The field `method`, where something was said about it."""
    if method is None and not hyperparameters:
        return {}
    name = method or ("dpo" if "beta" in hyperparameters else "supervised")
    said = {name: {"hyperparameters": hyperparameters}} if hyperparameters else {}
    return {"method": {"type": name, **said}}


def asked_of(method: str | None, numbers: Sequence[Any], tuning: Sequence[Any]) -> dict[str, Any]:
    """The fields `method` and `afina` from the hyperparameters and the tuning's fields, in their
    order; nothing is said where nothing was given."""
    return method_of(method, named(("n_epochs", "batch_size", RATE, "beta"), numbers)) | (
        extension_of(named(TUNING_FIELDS, tuning), None, None, False, {})
    )


def integrations_of(wandb: str | None, mlflow: str | None) -> dict[str, Any]:
    """The field `integrations`, where one was named."""
    found: list[dict[str, Any]] = []
    if wandb is not None:
        found.append({"type": "wandb", "wandb": {"project": wandb}})
    if mlflow is not None:
        found.append({"type": "mlflow", "mlflow": {"experiment": mlflow}})
    return {"integrations": found} if found else {}


def extension_of(
    tuning: dict[str, Any],
    patience: int | None,
    min_delta: float | None,
    best_checkpoint: bool,
    gate: dict[str, Any],
) -> dict[str, Any]:
    """The field `afina`, where something was said in it."""
    if patience is None and min_delta is not None:
        raise typer.BadParameter("--min-delta goes with --early-stopping")
    modules = tuning.get("target_modules")
    if modules is not None:
        tuning["target_modules"] = [name.strip() for name in modules.split(",")]
    extension = given(
        tuning=tuning or None,
        early_stopping=given(patience=patience, min_delta=min_delta) or None,
        best_checkpoint=best_checkpoint or None,
        gate=gate or None,
    )
    return {"afina": extension} if extension else {}
