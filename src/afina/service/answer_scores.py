"""How likely a model finds an answer that somebody wrote: its log-probability, as in training.

The chat is rendered as a training row is, and the tokens that would carry loss are scored by the
engine. It goes the way of a plain completion with `echo`, so it is metered and limited like one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from afina.domain.accounts import Caller
from afina.errors import InvalidRequest
from afina.service.completions import CompletionsService
from afina.text.renderer import RenderedRow


@dataclass(frozen=True)
class AnswerScore:
    """The sum of the natural logarithms over the answer's tokens, and how many those are."""

    logprob: float
    tokens: int

    @property
    def per_token(self) -> float:
        """The mean over tokens: minus the loss that training would show for this answer."""
        return self.logprob / self.tokens


async def score_answer(
    service: CompletionsService,
    caller: Caller,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    request_id: str,
) -> AnswerScore:
    """The score of the last message, an assistant's, after those before it. Raises
    InvalidRequest, ModelNotFound, ContextTooLong and what the engine says."""
    if not messages or messages[-1].get("role") != "assistant":
        raise InvalidRequest("The chat must end with an answer to score.", param="messages")

    def render() -> RenderedRow:
        return service.renderer(caller, model).training_row(messages)

    row = await to_thread.run_sync(render)
    learned = _last_span(row.learned)
    if not learned:
        raise InvalidRequest("The answer has no token to score.", param="messages")
    asked = {"model": model, "prompt": row.ids, "echo": True, "logprobs": 0, "max_tokens": 0}
    document = json.loads(await service.answer(caller, asked, request_id))
    told: list[float | None] = document["choices"][0]["logprobs"]["token_logprobs"]
    values = [told[place] or 0.0 for place in learned]
    return AnswerScore(sum(values), len(values))


def _last_span(learned: Sequence[bool]) -> range:
    """The places of the last run of learned tokens: those of the last answer."""
    end = len(learned)
    while end and not learned[end - 1]:
        end -= 1
    start = end
    while start and learned[start - 1]:
        start -= 1
    return range(start, end)
