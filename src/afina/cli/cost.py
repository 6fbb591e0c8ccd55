"""`afina cost`: what a day's traffic and a training cost at published prices and on one's own
machine, and when the machine has paid for itself. Needs no server."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from afina.cli.options import JsonOption
from afina.cli.terminal import in_count, in_dollars, print_facts, print_json, print_table

if TYPE_CHECKING:
    from afina.domain.price_profiles import HostedCost, Machine, OwnCost, Profile, Scenario

_PER: Final = {"million": 1, "thousand": 1000}

ProfileOption = Annotated[
    str, typer.Option("--profile", help="A published price list; `--list` shows them.")
]
ListOption = Annotated[bool, typer.Option("--list", help="Show the price lists and leave.")]
PerOption = Annotated[
    str, typer.Option("--per", help="Show prices per `million` or `thousand` tokens.")
]


def _count(help: str) -> Any:  # noqa: A002 - typer's own word
    return typer.Option(min=0, help=help)


def _rate(help: str) -> Any:  # noqa: A002 - typer's own word
    return typer.Option(min=0.000001, help=help)


def cost(
    requests_per_day: Annotated[int, _count("Requests a day.")] = 1000,
    input_tokens: Annotated[int, _count("Tokens of a request.")] = 1000,
    output_tokens: Annotated[int, _count("Tokens of an answer.")] = 250,
    cached_tokens: Annotated[int, _count("Tokens of a request that are cached.")] = 0,
    training_tokens: Annotated[int, _count("Tokens of the training file.")] = 100_000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training.")] = 3,
    profile: ProfileOption = "gpt-4o-mini-2024-07-18",
    per: PerOption = "million",
    show_lists: ListOption = False,
    machine_price: Annotated[float, _count("Dollars that the machine cost.")] = 1500,
    years: Annotated[float, _rate("Years until it is worn out.")] = 4,
    watts: Annotated[float, _count("What it draws at work.")] = 120,
    kwh_price: Annotated[float, _count("Dollars a kilowatt-hour.")] = 0.25,
    tokens_per_second: Annotated[float, _rate("What it answers with, in and out.")] = 1000,
    training_rate: Annotated[float, _rate("Tokens a second that it trains.")] = 500,
    examples: Annotated[int, _count("Examples that people write.")] = 50,
    minutes_per_example: Annotated[float, _count("Minutes for each of them.")] = 6,
    wage: Annotated[float, _count("Dollars an hour of that work.")] = 30,
    json: JsonOption = False,
) -> None:
    """Compare the hosted price of a scenario with a machine of your own."""
    from afina.domain.price_profiles import PROFILES, Machine, Scenario

    if per not in _PER:
        raise typer.BadParameter("--per is `million` or `thousand`")
    if show_lists:
        _show_lists(list(PROFILES.values()), per, json)
        return
    if profile not in PROFILES:
        raise typer.BadParameter(f"there is no profile {profile}; there are {', '.join(PROFILES)}")
    if cached_tokens > input_tokens:
        raise typer.BadParameter("--cached-tokens are part of --input-tokens, so not more")
    comparison = _Comparison.of(
        PROFILES[profile],
        Scenario(
            requests_per_day, input_tokens, output_tokens, cached_tokens, training_tokens, epochs
        ),
        Machine(
            *(_exact(v) for v in (machine_price, years, watts, kwh_price)),
            *(_exact(v) for v in (tokens_per_second, training_rate)),
        ),
        examples * _exact(minutes_per_example) / 60 * _exact(wage),
    )
    if json:
        print_json(comparison.as_json())
    else:
        comparison.show(per)


@dataclass(frozen=True)
class _Comparison:
    profile: Profile
    scenario: Scenario
    machine: Machine
    preparation: Decimal
    hosted: HostedCost
    own: OwnCost

    @classmethod
    def of(
        cls, profile: Profile, scenario: Scenario, machine: Machine, preparation: Decimal
    ) -> _Comparison:
        from afina.domain.price_profiles import hosted_cost, own_cost

        hosted = hosted_cost(scenario, profile.prices)
        return cls(
            profile, scenario, machine, preparation, hosted, own_cost(scenario, machine, hosted)
        )

    def as_json(self) -> dict[str, Any]:
        from dataclasses import asdict

        from afina.domain.prices import dollars

        hosted = {name: str(dollars(pico)) for name, pico in asdict(self.hosted).items()}
        own = {
            name: None if value is None else str(round(value, 6))
            for name, value in asdict(self.own).items()
        }
        return {
            "profile": asdict(self.profile),
            "scenario": asdict(self.scenario),
            "hosted": hosted,
            "own": own,
            "data_preparation": str(round(self.preparation, 2)),
        }

    def show(self, per: str) -> None:
        from afina.domain.prices import dollars

        scenario, hosted, own = self.scenario, self.hosted, self.own
        print(f"{in_count(scenario.requests_per_day)} requests a day, each of")
        print_facts(
            {
                "  input": _in_words(scenario.input_tokens),
                "  output": _in_words(scenario.output_tokens),
                "  training file": f"{_in_words(scenario.training_tokens)}, "
                f"{scenario.epochs} epochs",
            }
        )
        print()
        rows = [
            ("answers, a day", in_dollars(dollars(hosted.day)), in_dollars(own.day)),
            ("answers, 30 days", in_dollars(dollars(hosted.month)), in_dollars(own.month)),
            ("training, an epoch", in_dollars(dollars(hosted.epoch)), ""),
            ("training in all", in_dollars(dollars(hosted.training)), in_dollars(own.training)),
            ("preparing the data", in_dollars(self.preparation), in_dollars(self.preparation)),
        ]
        print_table(("", f">hosted at {self.profile.name}", ">your own machine"), rows)
        print(_prices_line(self.profile, per))
        for line in self._verdict():
            print(line)

    def _verdict(self) -> list[str]:
        own, machine = self.own, self.machine
        price = in_dollars(machine.price)
        lines = [f"Your machine would be busy {own.busy_share:.1%} of the day."]
        if own.busy_share > 1:
            return [*lines, "It cannot carry this traffic: --tokens-per-second is too low for it."]
        if own.break_even_days is None:
            return [*lines, f"It never pays: its current costs more than the answers ({price})."]
        days = own.break_even_days
        return [*lines, f"It pays for itself ({price}) after {days:,.1f} days of this traffic."]


def _show_lists(profiles: list[Profile], per: str, json: bool) -> None:
    from dataclasses import asdict

    if json:
        print_json([asdict(profile) for profile in profiles])
        return
    rows = [
        (
            profile.name,
            *(
                _price(text, per)
                for text in (profile.training, profile.input, profile.cached_input, profile.output)
            ),
        )
        for profile in profiles
    ]
    print(f"Dollars per {per} tokens:")
    print_table(("price list", ">training", ">input", ">cached input", ">output"), rows)


def _prices_line(profile: Profile, per: str) -> str:
    shown = [
        f"training {_price(profile.training, per)}",
        f"input {_price(profile.input, per)}",
        f"output {_price(profile.output, per)}",
    ]
    return f"Dollars per {per} tokens: {', '.join(shown)}."


def _price(text: str | None, per: str) -> str:
    return "–" if text is None else f"{(Decimal(text) / _PER[per]).normalize():f}"


def _in_words(tokens: int) -> str:
    from afina.domain.price_profiles import WORDS_A_TOKEN

    return f"{in_count(tokens)} tokens (about {in_count(round(tokens * WORDS_A_TOKEN))} words)"


def _exact(number: float) -> Decimal:
    return Decimal(str(number))
