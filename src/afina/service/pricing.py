"""The price table of the settings as exact picodollars."""

from __future__ import annotations

from afina.domain.prices import Prices, pico_per_token
from afina.errors import BadSettings
from afina.settings import Price, Settings


def prices_of(settings: Settings, base_id: str) -> Prices:
    """What a token of that base model costs."""
    return _exact(base_id, settings.price_of(base_id))


def check_prices(settings: Settings) -> None:
    """Raises BadSettings for a price that is negative or has more than six decimals."""
    for name, price in settings.prices.items():
        _exact(name, price)


def _exact(name: str, price: Price) -> Prices:
    try:
        return Prices(
            training=pico_per_token(price.training),
            input=pico_per_token(price.input),
            cached_input=pico_per_token(price.cached_input),
            output=pico_per_token(price.output),
        )
    except (ValueError, ArithmeticError) as error:
        raise BadSettings(
            f"A price of {name} is wrong: {error}.",
            param=f"prices.{name}",
            remedy="Prices are dollars per million tokens, with at most six decimals.",
        ) from None
