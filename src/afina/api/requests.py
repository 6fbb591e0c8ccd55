"""Strict shapes of what clients send about files and jobs, and the way from there to our verbs.

Every field of the wire is here: honoured, or refused by name when it says more than its neutral
value. Chat requests have their own module, `afina.service.chat_request`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from afina.api.integrations import Integrations
from afina.api.job_extension import JobExtension
from afina.domain.jobs import Hyperparameters
from afina.errors import InvalidRequest, UnsupportedField
from afina.service.jobs import JobRequest
from afina.service.refusals import LaxWire, Wire, fault, named

Json = Any


def _auto(lowest: int, highest: int | None, *, whole: bool) -> PlainValidator:
    kind = "integer" if whole else "decimal"
    article = "an integer" if whole else "a number"

    def check(value: object) -> object:
        if value == "auto" and isinstance(value, str):
            return value
        number = isinstance(value, int) and not isinstance(value, bool)
        if not (number or (not whole and isinstance(value, float))):
            got = "another string" if isinstance(value, str) else named(value)
            raise fault("invalid_type", f"expected 'auto' or {article}, but got {got} instead")
        assert isinstance(value, int | float)
        if value < lowest or (not whole and value <= lowest):
            relation = ">=" if whole else ">"
            raise fault(f"{kind}_below_min_value", f"expected a value {relation} {lowest}")
        if highest is not None and value > highest:
            raise fault(f"{kind}_above_max_value", f"expected a value <= {highest}")
        return value if whole else float(value)

    return PlainValidator(check)


def _auto_schema(kind: str, **limits: object) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": kind, **limits}]})


Epochs = Annotated[
    int | Literal["auto"],
    _auto(1, 50, whole=True),
    _auto_schema("integer", minimum=1, maximum=50),
]
BatchSize = Annotated[
    int | Literal["auto"],
    _auto(1, 256, whole=True),
    _auto_schema("integer", minimum=1, maximum=256),
]
Multiplier = Annotated[
    float | Literal["auto"],
    _auto(0, 1000, whole=False),
    _auto_schema("number", exclusiveMinimum=0, maximum=1000),
]
"""Above 1000 any training diverges; the hosted service names no upper limit."""
Beta = Annotated[
    float | Literal["auto"],
    _auto(0, 2, whole=False),
    _auto_schema("number", exclusiveMinimum=0, maximum=2),
]


class SupervisedHyperparameters(Wire):
    """What may be said about a supervised run."""

    n_epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class DpoHyperparameters(SupervisedHyperparameters):
    """What may be said about a run with preferences."""

    beta: Beta = "auto"


class Supervised(Wire):
    """The supervised method."""

    hyperparameters: SupervisedHyperparameters | None = None


class Dpo(Wire):
    """Direct preference optimisation."""

    hyperparameters: DpoHyperparameters | None = None


class Method(Wire):
    """How to train; `reinforcement` is known and refused."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Json = None


Pair = Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")]
PairName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]


class JobCreate(Wire):
    """POST /v1/fine_tuning/jobs."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    training_file: Annotated[str, Field(min_length=1, max_length=512)]
    validation_file: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    method: Method | None = None
    hyperparameters: SupervisedHyperparameters | None = None
    integrations: Integrations | None = None
    metadata: Annotated[dict[PairName, Pair], Field(max_length=16)] | None = None
    afina: JobExtension | None = None


def job_request(asked: JobCreate) -> JobRequest:
    """What the service is asked for. Raises UnsupportedField, InvalidRequest."""
    extension = asked.afina or JobExtension()
    return JobRequest(
        model=asked.model,
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        suffix=asked.suffix,
        seed=asked.seed,
        hyperparameters=_hyperparameters(asked),
        method="supervised" if asked.method is None else asked.method.type,
        method_given=asked.method is not None,
        metadata=asked.metadata or None,
        integrations=tuple(one.value() for one in asked.integrations or ()),
        extension=extension.value(),
        kind_given=extension.kind_given,
    )


def _hyperparameters(asked: JobCreate) -> Hyperparameters:
    method = asked.method
    given = asked.hyperparameters
    if method is not None:
        _check_method(method)
        if given is not None:
            raise InvalidRequest(
                "'hyperparameters' and 'method' cannot both be given: put them into "
                f"'method.{method.type}.hyperparameters'.",
                param="hyperparameters",
                code="invalid_value",
            )
        said = method.dpo if method.type == "dpo" else method.supervised
        given = None if said is None else said.hyperparameters
    if given is None:
        given = SupervisedHyperparameters()
    beta = given.beta if isinstance(given, DpoHyperparameters) else None
    if beta is None and method is not None and method.type == "dpo":
        beta = "auto"
    return Hyperparameters(given.n_epochs, given.batch_size, given.learning_rate_multiplier, beta)


def _check_method(method: Method) -> None:
    """Raises for the method that is not offered, and for words about another method."""
    for name in ("supervised", "dpo", "reinforcement"):
        if name == "reinforcement" and name == method.type:
            raise UnsupportedField(
                f"The method '{name}' is not offered yet: use 'supervised' or 'dpo'.",
                param="method.type",
            )
        if name != method.type and getattr(method, name) is not None:
            raise InvalidRequest(
                f"'method.{name}' is given, but 'method.type' is '{method.type}'.",
                param=f"method.{name}",
                code="invalid_value",
            )


After = Annotated[str, Field(min_length=1, max_length=512)]


class FileListQuery(LaxWire):
    """GET /v1/files."""

    purpose: (
        Literal[
            "fine-tune",
            "user_data",
            "fine-tune-results",
            "assistants",
            "assistants_output",
            "batch",
            "batch_output",
            "vision",
            "evals",
        ]
        | None
    ) = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    after: After | None = None


class JobListQuery(LaxWire):
    """GET /v1/fine_tuning/jobs; `metadata[key]=value` asks for jobs with that pair."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    metadata: dict[PairName, Pair] | Literal["null"] | None = None


class EventListQuery(LaxWire):
    """GET …/events."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20


class CheckpointListQuery(LaxWire):
    """GET …/checkpoints."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 10


class NoQuery(LaxWire):
    """An operation whose URL takes no query."""


class ExpiresAfter(LaxWire):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class UploadForm(LaxWire):
    """The fields of POST /v1/files beside the file itself."""

    purpose: Literal["fine-tune", "user_data", "assistants", "batch", "vision", "evals"]
    expires_after: ExpiresAfter | None = None


_OFFERED_PURPOSES = ("fine-tune", "user_data", "batch")


def refuse_purpose(purpose: str) -> None:
    """Raises UnsupportedField for a purpose that the wire knows and afina does not offer."""
    if purpose not in _OFFERED_PURPOSES:
        raise UnsupportedField(
            f"Files for '{purpose}' are not offered: use 'fine-tune', 'batch' or 'user_data'.",
            param="purpose",
            code="unsupported_value",
        )
