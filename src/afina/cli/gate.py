"""Commands of the gate: a model's card, measuring it again, its release, its holding back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import at, print_facts, print_json, tell

_POLL_S: Final = 2.0
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A tuned model's name.")]


def card(
    name: NameArgument,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT", help="Write the card as a page.")
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option("--readme", metavar="OUT", help="Write it as README.md, as hubs read it."),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Of page and README: en, es or pt.")
    ] = "en",
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a tuned model's card: data, method, gate, who released it, parity, licence of the
    base."""
    from afina.cli.client import segment
    from afina.language.strings import LANGUAGES
    from afina.service.card_page import card_page
    from afina.service.card_readme import card_readme

    if language not in LANGUAGES:
        raise typer.BadParameter(f"{language}: there are {', '.join(LANGUAGES)}.")
    with open_client(data, server) as client:
        found = client.get(f"/v1/afina/models/{segment(name)}/card")
    if html is not None:
        html.write_text(card_page(found, language), encoding="utf-8")
        tell(f"The card is in {html}.")
    if readme is not None:
        readme.write_text(card_readme(found, language=language), encoding="utf-8")
        tell(f"The card is in {readme}.")
    if html is not None or readme is not None:
        return
    if json:
        print_json(found)
    else:
        print_facts(_facts(found))


def ask(
    name: NameArgument,
    suite: Annotated[
        str | None, typer.Option("--suite", help="default or full [as before].")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is measured.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let the gate measure a model again, after it could not, or under other limits. With policy
    hold a model that passes is released, and one that fails is held, unless somebody released or
    held it by hand."""
    from afina.cli.client import segment

    path = f"/v1/afina/models/{segment(name)}"
    with open_client(data, server) as client:
        asked = client.post(f"{path}/gate", {} if suite is None else {"suite": suite})
        if not wait:
            if json:
                print_json(asked)
            else:
                tell(f"The gate measures {name}; `afina models card {name}` shows what it finds.")
            return
        tell(f"The gate measures {name} …")
        while (found := client.get(f"{path}/card"))["gate"]["status"] == "pending":
            time.sleep(_POLL_S)
    if json:
        print_json(found["gate"])
    else:
        print_facts(_facts(found))


def release(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let a held model's name answer; the audit log says who did."""
    _change(name, "release", "answers now", (server, data, json))


def hold(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Hold a model back: its name answers no more; the audit log says who did."""
    _change(name, "hold", "is held back", (server, data, json))


def _change(name: str, verb: str, done: str, options: tuple[str | None, Path | None, bool]) -> None:
    from afina.cli.client import segment

    server, data, json = options
    with open_client(data, server) as client:
        found = client.post(f"/v1/afina/models/{segment(name)}/{verb}")
    if json:
        print_json(found)
    else:
        tell(f"{name} {done}.")


def _facts(card: dict[str, Any]) -> dict[str, str]:
    made = {
        "model": card["model"],
        "state": card["state"],
        "base": card["base"]["id"],
        "licence of the base": str(card["base"].get("licence")),
        "tuned by": str(card["method"]["kind"]),
    }
    for number, one in enumerate(card["history"], 1):
        who = f"the person {one['user']}" if one["user"] else f"the key {one['key']}"
        if one["by"] == "gate":
            who = f"the gate, which {who} had asked again"
        made[f"change {number}"] = f"{one['state']} {at(one['at'])} by {who}"
    for file in card["data"]:
        made[file["which"].replace("_", " ")] = f"{file['rows']} rows, sha256 {file['sha256']}"
    gate = card["gate"]
    if gate is None:
        return made | {"gate": "none was asked for"}
    if gate["report"] is None:
        waits = {"gone": "it went with the job's model", "waits": "asked at the job's end"}
        told = waits.get(gate["status"], "its report is on the way")
        unasked = gate["status"] in ("waits", "pending")
        return made | {"gate": told if unasked else gate["note"] or told}
    report = gate["report"]
    whose = "" if gate["model"] == card["model"] else f" of {gate['model']}"
    took = f"policy {gate['policy']}, {report['seconds']:.0f} s"
    made["gate"] = f"{report['verdict']}{whose} ({took})"
    if gate["status"] == "pending":
        made["gate now"] = "it is being measured again"
    elif gate["note"]:
        made["gate now"] = f"it could not be measured again: {gate['note']}"
    for part in report["parts"]:
        word = "passed" if part["passed"] else "failed"
        told = f"{word}: {part['note']}" if part["note"] else word
        made[f"  {part['name']}"] = told if part["measured"] else f"not measured: {part['note']}"
    for number, reason in enumerate(report["reasons"], 1):
        made[f"  reason {number}"] = reason
    return made
