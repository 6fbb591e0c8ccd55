"""The hosted service's fine-tuning part as an OpenAPI document: what its clients may send, and what
they are told to expect. Written down from its public specification; `paused` is in it because the
service answers it, though its own list of states leaves it out.
"""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_TIME: Final = {"type": "integer", "minimum": 0}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _auto(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"const": "auto"}, kind]}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _listed(item: str) -> dict[str, Any]:
    return _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}},
            "has_more": {"type": "boolean"},
        },
        {"first_id": _or_null(_TEXT), "last_id": _or_null(_TEXT)},
    )


_RATE: Final = {"type": "number", "exclusiveMinimum": 0}
_ASKED: Final = {
    "batch_size": _auto({"type": "integer", "minimum": 1, "maximum": 256}),
    "learning_rate_multiplier": _auto(_RATE),
    "n_epochs": _auto({"type": "integer", "minimum": 1, "maximum": 50}),
}
_BETA: Final = {"beta": _auto({"type": "number", "exclusiveMinimum": 0, "maximum": 2})}
_METADATA: Final = _or_null(
    {
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 512},
        "propertyNames": {"maxLength": 64},
    }
)
_WANDB: Final = _object(
    {
        "type": {"const": "wandb"},
        "wandb": _object(
            {"project": _TEXT},
            {
                "name": _or_null(_TEXT),
                "entity": _or_null(_TEXT),
                "tags": {"type": "array", "items": _TEXT},
            },
        ),
    }
)
_METHOD: Final = _object(
    {"type": {"enum": ["supervised", "dpo", "reinforcement"]}},
    {
        "supervised": _object({}, {"hyperparameters": _object({}, _ASKED)}),
        "dpo": _object({}, {"hyperparameters": _object({}, {**_ASKED, **_BETA})}),
    },
)
_SCHEMAS: Final[dict[str, Any]] = {
    "Error": _object(
        {
            "error": _object(
                {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": _or_null(_TEXT),
                    "code": _or_null(_TEXT),
                }
            )
        }
    ),
    "CreateJob": _object(
        {"model": _TEXT, "training_file": _TEXT},
        {
            "hyperparameters": _object({}, _ASKED),
            "suffix": _or_null({"type": "string", "minLength": 1, "maxLength": 64}),
            "validation_file": _or_null(_TEXT),
            "integrations": _or_null({"type": "array", "maxItems": 5, "items": _WANDB}),
            "seed": _or_null({"type": "integer", "minimum": 0, "maximum": 2147483647}),
            "method": _METHOD,
            "metadata": _METADATA,
        },
    ),
    "Job": _object(
        {
            "id": _TEXT,
            "object": {"const": "fine_tuning.job"},
            "created_at": _TIME,
            "error": _or_null(_object({"code": _or_null(_TEXT), "message": _or_null(_TEXT)})),
            "fine_tuned_model": _or_null(_TEXT),
            "finished_at": _or_null(_TIME),
            "hyperparameters": _or_null(_object({}, _ASKED)),
            "model": _TEXT,
            "organization_id": _TEXT,
            "result_files": {"type": "array", "items": _TEXT},
            "status": {
                "enum": [
                    "validating_files",
                    "queued",
                    "running",
                    "succeeded",
                    "failed",
                    "cancelled",
                    "paused",
                ]
            },
            "trained_tokens": _or_null(_WHOLE),
            "training_file": _TEXT,
            "validation_file": _or_null(_TEXT),
            "seed": _WHOLE,
        },
        {
            "integrations": _or_null({"type": "array", "maxItems": 5}),
            "estimated_finish": _or_null(_TIME),
            "method": _METHOD,
            "metadata": _METADATA,
        },
    ),
    "Event": _object(
        {
            "id": _TEXT,
            "object": {"const": "fine_tuning.job.event"},
            "created_at": _TIME,
            "level": {"enum": ["info", "warn", "error"]},
            "message": _TEXT,
        },
        {"type": {"enum": ["message", "metrics"]}, "data": {"type": "object"}},
    ),
    "Checkpoint": _object(
        {
            "id": _TEXT,
            "object": {"const": "fine_tuning.job.checkpoint"},
            "created_at": _TIME,
            "fine_tuned_model_checkpoint": _TEXT,
            "step_number": _WHOLE,
            "fine_tuning_job_id": _TEXT,
            "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
        }
    ),
    "File": _object(
        {
            "id": _TEXT,
            "object": {"const": "file"},
            "bytes": _WHOLE,
            "created_at": _TIME,
            "filename": _TEXT,
            "purpose": _TEXT,
            "status": {"enum": ["uploaded", "processed", "error"]},
        },
        {"expires_at": _or_null(_TIME), "status_details": _or_null(_TEXT)},
    ),
    "Jobs": _listed("Job"),
    "Events": _listed("Event"),
    "Checkpoints": _listed("Checkpoint"),
    "Files": _listed("File"),
    "Model": _object(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _WHOLE,
            "owned_by": _TEXT,
        }
    ),
    "Deleted": _object({"id": _TEXT, "object": _TEXT, "deleted": {"const": True}}),
}


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _operation(
    answer: str, *ids: str, query: dict[str, Any] | None = None, body: str | None = None
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in ids
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": kind}
        for name, kind in (query or {}).items()
    ]
    made: dict[str, Any] = {
        "parameters": parameters,
        "responses": {
            "200": {"description": "As asked.", "content": _content(answer)},
            "4XX": {"description": "Refused.", "content": _content("Error")},
        },
    }
    if body is not None:
        made["requestBody"] = {"required": True, "content": _content(body)}
    return made


def _page(most: int) -> dict[str, Any]:
    return {"after": _TEXT, "limit": {"type": "integer", "minimum": 1, "maximum": most}}


def document() -> dict[str, Any]:
    """The whole document."""
    job = "/v1/fine_tuning/jobs/{job_id}"
    return {
        "openapi": "3.1.0",
        "info": {"title": "The hosted fine-tuning API", "version": "2.3.0"},
        "paths": {
            "/v1/fine_tuning/jobs": {
                "get": _operation("Jobs", query=_page(100)),
                "post": _operation("Job", body="CreateJob"),
            },
            job: {"get": _operation("Job", "job_id")},
            f"{job}/events": {"get": _operation("Events", "job_id", query=_page(100))},
            f"{job}/checkpoints": {"get": _operation("Checkpoints", "job_id", query=_page(100))},
            f"{job}/pause": {"post": _operation("Job", "job_id")},
            f"{job}/resume": {"post": _operation("Job", "job_id")},
            f"{job}/cancel": {"post": _operation("Job", "job_id")},
            "/v1/files": {
                "get": _operation(
                    "Files",
                    query={**_page(10000), "order": {"enum": ["asc", "desc"]}, "purpose": _TEXT},
                )
            },
            "/v1/files/{file_id}": {
                "get": _operation("File", "file_id"),
                "delete": _operation("Deleted", "file_id"),
            },
            "/v1/models/{model}": {"get": _operation("Model", "model")},
        },
        "components": {"schemas": _SCHEMAS},
    }
