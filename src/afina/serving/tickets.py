"""From the wire's requests to tickets: what a lane can carry out, or a typed refusal."""

from __future__ import annotations

from afina.serving.answers import GeneratedAnswer, ScoredAnswer
from afina.serving.bounds import Bounds
from afina.serving.lane import Lane, Manner, Ticket
from afina.serving.penalties import Bias, Penalties, Reshaping, Reshapings
from afina.serving.protocol import Generate, Score
from afina.serving.sequences import Prompt, Sequence


def generate_ticket(request: Generate, lane: Lane) -> Ticket:
    """A ticket for a Generate. Raises InvalidRequest or ContextTooLong."""
    _bounds(lane).check_generate(request)
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


def score_ticket(name: str, request: Score, lane: Lane) -> Ticket:
    """A ticket for a Score: the forced ids go the way of sampled ones."""
    _bounds(lane).check_score(request)
    prompt = Prompt(name, request.prompt, request.adapter, background=request.background)
    prompt.sequences = [Sequence(prompt, 0, len(request.ids))]
    manner = Manner(top=request.top, forced=tuple(request.ids))
    tag = request.tag if request.request_id else None
    return Ticket(prompt, manner, ScoredAnswer(request, lane.runner.weights), tag=tag)


def _reshapings(request: Generate, lane: Lane) -> tuple[Reshaping, ...]:
    """What changes the scores, by choice; nothing where nothing is asked for. The grammar comes
    last: what it forbids, no bias brings back."""
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


def _bounds(lane: Lane) -> Bounds:
    base = lane.runner.base
    return Bounds(base.vocab_size, base.context_tokens)
