"""Money in integers. One picodollar is 1e-12 US dollars.

A price per million tokens with up to six decimals is a whole number of picodollars a token
(0.30 dollars per million = 300,000 picodollars a token), so sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

PICO: Final = 10**12


def pico_per_token(dollars_per_million: Decimal | str) -> int:
    """A price per million tokens as picodollars a token. Raises ValueError below 1e-6 dollars."""
    pico = Decimal(dollars_per_million) * PICO / 1_000_000
    if pico < 0 or pico != pico.to_integral_value():
        raise ValueError(f"{dollars_per_million} has more than six decimals or is negative")
    return int(pico)


def dollars(pico: int) -> Decimal:
    """An amount in dollars, exactly."""
    return Decimal(pico) / PICO


@dataclass(frozen=True)
class Prices:
    """Picodollars a token for one base model and the models tuned from it."""

    training: int = 0
    input: int = 0
    cached_input: int = 0
    output: int = 0

    def training_cost(self, tokens: int) -> int:
        return tokens * self.training

    def inference_cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """`cached_tokens` are part of `prompt_tokens` and cost `cached_input` instead."""
        fresh = prompt_tokens - cached_tokens
        return (
            fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        )
