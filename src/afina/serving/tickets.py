"""From the wire's requests to tickets: what a lane can carry out, or a typed refusal.

The api refuses most of this with better words; the engine checks again, since it must never run
into what it cannot do.
"""

from __future__ import annotations

from afina.errors import ContextTooLong, InvalidRequest
from afina.serving.answers import GeneratedAnswer, ScoredAnswer
from afina.serving.lane import Lane, Manner, Ticket
from afina.serving.penalties import Bias, Penalties, Reshaping, Reshapings
from afina.serving.protocol import Generate, Score
from afina.serving.sequences import Prompt, Sequence

MAX_CHOICES = 128
MAX_TOP = 20


def generate_ticket(request: Generate, lane: Lane) -> Ticket:
    """A ticket for a Generate. Raises InvalidRequest or ContextTooLong."""
    _check_sizes(lane, request.prompt, request.max_tokens)
    _within("n", request.n, 1, MAX_CHOICES)
    _within("temperature", request.temperature, 0.0, 100.0)
    _within("top_p", request.top_p, 0.0, 1.0)
    if request.logprobs is not None:
        _within("logprobs", request.logprobs, 0, MAX_TOP)
    prompt = Prompt(
        request.request_id,
        request.prompt,
        request.adapter,
        request.namespace,
        request.background,
    )
    prompt.sequences = [Sequence(prompt, i, request.max_tokens) for i in range(request.n)]
    manner = Manner(
        seed=request.seed,
        temperature=request.temperature,
        top_p=request.top_p,
        top=request.logprobs,
        reshapings=_reshapings(request, lane),
    )
    return Ticket(prompt, manner, GeneratedAnswer(request, lane.tokenizer), tag=request.tag)


def score_ticket(name: str, request: Score, lane: Lane, precision: str) -> Ticket:
    """A ticket for a Score: the forced ids go the way of sampled ones."""
    if not request.ids:
        raise InvalidRequest("There are no ids to score.", param="ids")
    _check_sizes(lane, request.prompt, len(request.ids))
    _check_ids(lane, request.ids)
    _within("top", request.top, 1, MAX_TOP)
    prompt = Prompt(name, request.prompt, request.adapter, background=request.background)
    prompt.sequences = [Sequence(prompt, 0, len(request.ids))]
    manner = Manner(top=request.top, forced=tuple(request.ids))
    tag = request.tag if request.request_id else None
    return Ticket(prompt, manner, ScoredAnswer(request, precision), tag=tag)


def _reshapings(request: Generate, lane: Lane) -> tuple[Reshaping, ...]:
    """What changes the scores, by choice; nothing where nothing is asked for. The grammar comes
    last: what it forbids, no bias brings back."""
    _within("presence_penalty", request.presence_penalty, -2.0, 2.0)
    _within("frequency_penalty", request.frequency_penalty, -2.0, 2.0)
    if request.logit_bias:
        _check_ids(lane, list(request.logit_bias), "logit_bias")
    penalized = request.presence_penalty != 0.0 or request.frequency_penalty != 0.0
    if not (penalized or request.logit_bias or request.grammar is not None):
        return ()
    found = []
    for _ in range(request.n):
        parts: list[Reshaping] = []
        if request.logit_bias:
            parts.append(Bias(request.logit_bias))
        if penalized:
            parts.append(Penalties(request.presence_penalty, request.frequency_penalty))
        if request.grammar is not None:
            parts.append(lane.grammars.follow(request.grammar, request.end_tokens))
        found.append(parts[0] if len(parts) == 1 else Reshapings(parts))
    return tuple(found)


def _check_sizes(lane: Lane, prompt: list[int], max_tokens: int) -> None:
    if not prompt:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    if max_tokens < 1:
        raise InvalidRequest("max_tokens must be 1 or more.", param="max_tokens")
    limit = lane.runner.base.context_tokens
    if limit and len(prompt) + max_tokens > limit:
        raise ContextTooLong(
            f"The model's context is {limit} tokens; the prompt has {len(prompt)} and the answer "
            f"may take {max_tokens}.",
            param="messages",
            remedy="Shorten the messages or ask for fewer tokens.",
        )
    _check_ids(lane, prompt)


def _check_ids(lane: Lane, ids: list[int], param: str = "prompt") -> None:
    if min(ids) < 0 or max(ids) >= lane.runner.base.vocab_size:
        raise InvalidRequest("A token id is outside the model's vocabulary.", param=param)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{name} must be from {least} to {most}.", param=name)
