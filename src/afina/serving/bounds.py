"""What a request may ask for: sizes and ids, checked before anything is computed. No torch here.

The api refuses most of this with better words; the engine checks again, since it must never run
into what it cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from afina.errors import ContextTooLong, InvalidRequest
from afina.serving.protocol import Generate, Score

MAX_CHOICES: Final = 128
MAX_TOP: Final = 20


@dataclass(frozen=True)
class Bounds:
    """What one model can take."""

    vocab_size: int
    context_tokens: int
    """0: not known."""

    def check_generate(self, request: Generate) -> None:
        """Raises InvalidRequest or ContextTooLong."""
        self._check_sizes(request.prompt, request.max_tokens)
        _within("n", request.n, 1, MAX_CHOICES)
        _within("temperature", request.temperature, 0.0, 100.0)
        _within("top_p", request.top_p, 0.0, 1.0)
        _within("presence_penalty", request.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", request.frequency_penalty, -2.0, 2.0)
        if request.logprobs is not None:
            _within("logprobs", request.logprobs, 0, MAX_TOP)
        if request.logit_bias:
            self._check_ids(list(request.logit_bias), "logit_bias")

    def check_score(self, request: Score) -> None:
        """Raises InvalidRequest or ContextTooLong."""
        if not request.ids:
            raise InvalidRequest("There are no ids to score.", param="ids")
        self._check_sizes(request.prompt, len(request.ids))
        self._check_ids(request.ids, "prompt")
        _within("top", request.top, 1, MAX_TOP)

    def _check_sizes(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        if max_tokens < 1:
            raise InvalidRequest("max_tokens must be 1 or more.", param="max_tokens")
        limit = self.context_tokens
        if limit and len(prompt) + max_tokens > limit:
            raise ContextTooLong(
                f"The model's context is {limit} tokens; the prompt has {len(prompt)} and the "
                f"answer may take {max_tokens}.",
                param="messages",
                remedy="Shorten the messages or ask for fewer tokens.",
            )
        self._check_ids(prompt, "prompt")

    def _check_ids(self, ids: Sequence[int], param: str) -> None:
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise InvalidRequest(
                f"Invalid value for '{param}': an id is outside the model's vocabulary, whose "
                f"ids are from 0 to {self.vocab_size - 1}.",
                param=param,
                code="invalid_value",
            )


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{name} must be from {least} to {most}.", param=name)
