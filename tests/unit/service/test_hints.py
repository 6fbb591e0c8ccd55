"""Who mistypes a field, or takes it from another operation, is told what it is called here."""

from __future__ import annotations

import pytest

from afina.api.requests import JobCreate
from afina.errors import UnknownField
from afina.service.chat_request import ChatRequest
from afina.service.refusals import parse
from afina.service.response_request import ResponseRequest

JOB = {"model": "m", "training_file": "file-a"}
FUNCTION = {"role": "function", "name": "f", "content": "6"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "q"}]}


@pytest.mark.parametrize(
    ("model", "body", "told"),
    [
        (JobCreate, JOB | {"n_epoch": 3}, "Did you mean 'hyperparameters.n_epochs'?"),
        (JobCreate, JOB | {"sufix": "a"}, "Did you mean 'suffix'?"),
        (
            JobCreate,
            JOB | {"integrations": [{"type": "wandb", "wandb": {"project": "p", "nme": "x"}}]},
            "Did you mean 'integrations[0].wandb.name'?",
        ),
        (
            JobCreate,
            JOB | {"hyperparameters": {"learning_rate": 1.0}},
            "Did you mean 'hyperparameters.learning_rate_multiplier'?",
        ),
        (
            JobCreate,
            JOB | {"method": {"type": "supervised", "hyperparameters": {}}},
            "They stand below the method's name: 'method.supervised.hyperparameters'.",
        ),
        (ChatRequest, CHAT | {"max_output_tokens": 5}, "Here it is 'max_completion_tokens'."),
        (ChatRequest, CHAT | {"input": "q"}, "Here it is 'messages'."),
        (ResponseRequest, {"model": "m", "messages": []}, "Here it is 'input'."),
        (ResponseRequest, {"model": "m", "max_tokens": 5}, "Here it is 'max_output_tokens'."),
        (ResponseRequest, {"model": "m", "response_format": {}}, "Here it is 'text'."),
        (JobCreate, JOB | {"zebra": 1}, None),
        # The field of a message of another kind is no other name for the same field.
        (ChatRequest, {"model": "m", "messages": [FUNCTION | {"tool_call_id": "c"}]}, None),
    ],
)
def test_an_unknown_field_is_told_its_name(
    model: type[JobCreate], body: dict[str, object], told: str | None
) -> None:
    with pytest.raises(UnknownField) as refused:
        parse(model, body)
    assert refused.value.remedy == told
