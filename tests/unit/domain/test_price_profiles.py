"""What a month costs at published prices and on a machine of one's own."""

from __future__ import annotations

from decimal import Decimal

import pytest

from afina.domain.price_profiles import PROFILES, Machine, Scenario, hosted_cost, own_cost
from afina.domain.prices import Prices, dollars

LAUNCH = PROFILES["gpt-3.5-turbo-2023-08"].prices
MACHINE = Machine(
    price=Decimal(730),
    years=Decimal(2),
    watts=Decimal(100),
    kwh_price=Decimal("0.36"),
    tokens_per_second=Decimal(1000),
    training_tokens_per_second=Decimal(500),
)


@pytest.mark.parametrize(
    ("requests", "tokens", "day", "month"), [(1000, 4000, 112, 3360), (500, 2000, 28, 840)]
)
def test_the_launch_prices_make_the_published_months(
    requests: int, tokens: int, day: int, month: int
) -> None:
    found = hosted_cost(Scenario(requests, tokens, tokens), LAUNCH)
    assert dollars(found.day) == Decimal(day)
    assert dollars(found.month) == Decimal(month)


def test_training_is_priced_by_the_epoch() -> None:
    found = hosted_cost(Scenario(0, 0, 0, training_tokens=100_000, epochs=3), LAUNCH)
    assert (dollars(found.epoch), dollars(found.training)) == (Decimal("0.8"), Decimal("2.4"))


def test_cached_tokens_cost_the_cached_price_where_there_is_one() -> None:
    mini = PROFILES["gpt-4o-mini-2024-07-18"].prices
    found = hosted_cost(Scenario(1_000_000, 1, 0, cached_tokens=1), mini)
    assert dollars(found.day) == Decimal("0.15")
    assert LAUNCH.cached_input == LAUNCH.input


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_is_a_whole_number_of_picodollars(name: str) -> None:
    prices = PROFILES[name].prices
    assert min(prices.training, prices.input, prices.cached_input, prices.output) > 0


def test_a_machine_costs_its_wear_and_the_current_of_its_work() -> None:
    # A day of 3,600,000 tokens is an hour of work: 0.1 kWh, 0.036 dollars; wear is 1 dollar.
    scenario = Scenario(1000, 1800, 1800, training_tokens=600_000)
    found = own_cost(scenario, MACHINE, hosted_cost(scenario, LAUNCH))
    assert found.busy_share == Decimal(3600) / 86_400
    assert found.day == Decimal("1.036")
    assert found.training == Decimal("0.036")
    # 50.4 dollars a day hosted: 730 / (50.4 - 0.036).
    assert found.break_even_days is not None
    assert round(found.break_even_days, 2) == Decimal("14.49")


def test_a_machine_that_saves_nothing_never_pays() -> None:
    scenario = Scenario(1000, 1800, 1800)
    assert own_cost(scenario, MACHINE, hosted_cost(scenario, Prices())).break_even_days is None


def test_a_busy_machine_has_a_price_a_million_tokens() -> None:
    # 1,000 seconds: 100 Wh x 0.36 = 0.01 dollars of current, and 1/86.4 dollars of wear.
    assert MACHINE.per_million(Decimal(1000)) == Decimal("0.01") + 1000 / Decimal(86_400)
