"""Prices that the hosted service published, as ready-made profiles, and what they make of a month.

Dollars per million tokens, standard tier, as listed in 2025; older entries carry their date. The
hosted service halves all of them for batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from afina.domain.prices import Prices, dollars, pico_per_token


@dataclass(frozen=True)
class Profile:
    """A published price list: dollars per million tokens. `cached_input` None: not discounted."""

    name: str
    training: str
    input: str
    cached_input: str | None
    output: str

    @property
    def prices(self) -> Prices:
        """The same in picodollars a token."""
        return Prices(
            training=pico_per_token(self.training),
            input=pico_per_token(self.input),
            cached_input=pico_per_token(self.cached_input or self.input),
            output=pico_per_token(self.output),
        )


PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile("gpt-4.1", "25", "3.00", "0.75", "12.00"),
        Profile("gpt-4.1-mini", "5", "0.80", "0.20", "3.20"),
        Profile("gpt-4.1-nano", "1.50", "0.20", "0.05", "0.80"),
        Profile("gpt-4o-2024-08-06", "25", "3.75", "1.875", "15.00"),
        Profile("gpt-4o-mini-2024-07-18", "3", "0.30", "0.15", "1.20"),
        Profile("gpt-3.5-turbo", "8", "3.00", None, "6.00"),
        Profile("gpt-3.5-turbo-2023-08", "8", "12.00", None, "16.00"),
        Profile("davinci-002", "6", "12.00", None, "12.00"),
        Profile("babbage-002", "0.40", "1.60", None, "1.60"),
    )
}

DAYS_A_MONTH: Final = 30
WORDS_A_TOKEN: Final = Decimal("0.75")
"""English prose; other languages have fewer words a token."""


@dataclass(frozen=True)
class Scenario:
    """A day's traffic, and what is tuned once. Tokens are those of one request."""

    requests_per_day: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    training_tokens: int = 0
    """Tokens of the training file, before epochs."""
    epochs: int = 3


@dataclass(frozen=True)
class HostedCost:
    """What a scenario costs at a price list, in picodollars."""

    day: int
    month: int
    epoch: int
    training: int


def hosted_cost(scenario: Scenario, prices: Prices) -> HostedCost:
    """Exact integers: requests x tokens x price; a month has 30 days."""
    day = scenario.requests_per_day * prices.inference_cost(
        scenario.input_tokens, scenario.cached_tokens, scenario.output_tokens
    )
    epoch = prices.training_cost(scenario.training_tokens)
    return HostedCost(day, day * DAYS_A_MONTH, epoch, epoch * scenario.epochs)


@dataclass(frozen=True)
class Machine:
    """A machine of one's own: bought, worn out over `years`, and fed with current.

    `tokens_per_second` is what it answers with, prompt and answer tokens together, and
    `training_tokens_per_second` what it trains.
    """

    price: Decimal
    years: Decimal
    watts: Decimal
    kwh_price: Decimal
    tokens_per_second: Decimal
    training_tokens_per_second: Decimal

    @property
    def wear_per_day(self) -> Decimal:
        """Dollars of depreciation a day, whether it works or not."""
        return self.price / (self.years * 365)

    def power(self, seconds: Decimal) -> Decimal:
        """Dollars of current for working that long."""
        return self.watts / 1000 * seconds / 3600 * self.kwh_price

    def per_million(self, tokens_per_second: Decimal) -> Decimal:
        """Dollars for a million tokens at that rate when the machine is always busy."""
        seconds = Decimal(1_000_000) / tokens_per_second
        return self.power(seconds) + self.wear_per_day * seconds / 86_400


@dataclass(frozen=True)
class OwnCost:
    """The same scenario on a machine of one's own, in dollars."""

    busy_share: Decimal
    """Share of the day that the machine answers; above 1 it cannot carry the traffic."""
    day: Decimal
    month: Decimal
    training: Decimal
    """Current for the training alone; its wear is in the days."""
    break_even_days: Decimal | None
    """After so many days the machine is paid by what is saved; None: never."""


def own_cost(scenario: Scenario, machine: Machine, hosted: HostedCost) -> OwnCost:
    """Wear by the day and current by the second of work; the break-even weighs the machine's
    price against the hosted price less current."""
    tokens = scenario.requests_per_day * (scenario.input_tokens + scenario.output_tokens)
    seconds = tokens / machine.tokens_per_second
    current = machine.power(seconds)
    saved = dollars(hosted.day) - current
    trained = scenario.training_tokens * scenario.epochs
    return OwnCost(
        busy_share=seconds / 86_400,
        day=machine.wear_per_day + current,
        month=(machine.wear_per_day + current) * DAYS_A_MONTH,
        training=machine.power(trained / machine.training_tokens_per_second),
        break_even_days=machine.price / saved if saved > 0 else None,
    )
