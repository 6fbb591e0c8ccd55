"""The price table of the settings as exact picodollars."""

from __future__ import annotations

from afina.domain.price_profiles import PROFILES
from afina.domain.prices import Prices, pico_per_token
from afina.errors import BadSettings
from afina.inside_settings import Price
from afina.settings import Settings


def prices_of(settings: Settings, base_id: str) -> Prices:
    """What a token of that base model costs."""
    return _exact(base_id, settings.price_of(base_id))


def check_prices(settings: Settings) -> None:
    """Raises BadSettings for a price that is negative or has more than six decimals, and for a
    profile that there is not."""
    for name, price in settings.prices.items():
        _exact(name, price)


def _exact(name: str, price: Price) -> Prices:
    if price.profile is not None:
        return _of_profile(name, price, price.profile)
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


def _of_profile(name: str, price: Price, profile: str) -> Prices:
    if price.model_fields_set != {"profile"}:
        raise BadSettings(
            f"The prices of {name} name a profile and numbers.",
            param=f"prices.{name}",
            remedy="Give either the profile or the four numbers.",
        )
    found = PROFILES.get(profile)
    if found is None:
        raise BadSettings(
            f"The prices of {name} name the profile {profile}, which there is not.",
            param=f"prices.{name}.profile",
            remedy=f"There are {', '.join(PROFILES)}.",
        )
    return found.prices
