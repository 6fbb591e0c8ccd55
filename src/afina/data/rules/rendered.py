"""Rules over what the model's own template and tokenizer make of a row."""

from __future__ import annotations

from afina.data.rules.rule import Fault, Faults, RenderedFacts


def template_refuses(row: RenderedFacts) -> Faults:
    if row.refusal is not None:
        yield Fault(row.refusal)


def too_long(row: RenderedFacts) -> Faults:
    longest = max(row.lengths, default=0)
    if longest > row.max_tokens:
        yield Fault(f"The row is {longest:,} tokens long; {row.max_tokens:,} is the limit.")


def nothing_rendered(row: RenderedFacts) -> Faults:
    if row.refusal is None and row.learned_tokens == 0:
        yield Fault("The model's chat template leaves nothing to learn of this row.")


def control_token_in_text(row: RenderedFacts) -> Faults:
    for number in row.forged:
        yield Fault(
            "The text holds what looks like a control token of the model.",
            message_number=number,
            field="content",
        )
