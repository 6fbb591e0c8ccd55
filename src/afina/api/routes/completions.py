"""POST /v1/completions: text that is written on, without a template."""

from __future__ import annotations

from typing import Final

from afina.api.streaming import AnswerEndpoint, operation
from afina.service.completion_request import CompletionRequest
from afina.service.completions import PreparedCompletion

PATH: Final = "/v1/completions"
ENDPOINT: Final = AnswerEndpoint[CompletionRequest, PreparedCompletion](
    CompletionRequest, lambda parts: parts.completions
)
OPERATION: Final = operation(
    "completions",
    "create_completion",
    "Write a text on",
    CompletionRequest,
    "a `text_completion`",
)
