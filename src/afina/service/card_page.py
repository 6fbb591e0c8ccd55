"""A model's card as one HTML page that needs no server, script or other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;
color:#1c1c1c;background:#fff}h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;
margin-top:2rem;border-bottom:1px solid #ddd}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .75rem .25rem 0;vertical-align:top;font-weight:400;
overflow-wrap:anywhere}th{color:#555;min-width:12rem}.good{color:#0a6b2d}.bad{color:#a11212}
.tag{border:1px solid;border-radius:.3rem;padding:.1rem .5rem;font-weight:600}
.plain{color:#555}.n{font-variant-numeric:tabular-nums}svg{width:100%;height:auto}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}th,.plain{color:#aaa}
h2{border-color:#444}.good{color:#6fd08c}.bad{color:#ff8f8f}}
"""
_WORDS: Final = {
    "base_loss": "Loss of the base (nats a token)",
    "loss": "Loss of the tuned model (nats a token)",
    "loss_rise": "Change of the loss",
    "base_right": "Questions that the base answers",
    "right": "Questions that the tuned model answers",
    "lost": "Abilities of the base that are gone",
    "harmful_to_harmful": "Harmful answers to harmful prompts",
    "base_harmful_to_harmful": "… of the base",
    "harmful_to_harmless": "Harmful answers to harmless prompts",
    "base_harmful_to_harmless": "… of the base",
    "false_refusals": "Harmless questions that are refused",
    "base_false_refusals": "… by the base",
    "rise_to_harmful": "Rise at harmful prompts",
    "rise_to_harmless": "Rise at harmless prompts",
    "word_for_word": "Training answers that come back word for word",
    "unguessable_strings": "Answers with unguessable strings that come back",
}
_IN_NATS: Final = ("base_loss", "loss", "loss_rise")


def card_page(card: Mapping[str, Any]) -> str:
    """The page of a card that `afina.service.card` made."""
    title = f"Card of {card['model']}"
    state = card["state"]
    made = datetime.fromtimestamp(card["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    tag = f'<span class="tag {"bad" if state == "held" else "good"}">{escape(state)}</span>'
    body = "".join(
        [
            f"<h1>{escape(card['model'])}</h1><p>{tag} tuned {made}</p>",
            _gate(card["gate"]),
            _section("Base model", _facts(card["base"])),
            _section("Data", "".join(_data(file) for file in card["data"])),
            _section("Method", _facts(_flat(card["method"]))),
            _section("Curves", _curve(card["curves"])),
            _section("Parity: is it served as it was trained?", _facts(card["parity"] or {})),
        ]
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><main>{body}</main></html>"
    )


def _gate(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return _section("Gate", "<p>No gate was asked for.</p>")
    report = gate["report"]
    if report is None:
        why = gate["note"] or "its report is on the way"
        return _section("Gate", f"<p>Policy {escape(gate['policy'])}: {escape(why)}.</p>")
    good = report["verdict"] == "passed"
    parts = "".join(_part(part) for part in report["parts"])
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in report["reasons"])
    return _section(
        "Gate",
        f'<p><span class="tag {"good" if good else "bad"}">{escape(report["verdict"])}</span> '
        f"policy {escape(gate['policy'])}, suite {escape(report['suite'])}, "
        f"{report['seconds']:.1f} s, judged by {escape(report['judge'] or 'nobody')}</p>"
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + parts,
    )


def _part(part: Mapping[str, Any]) -> str:
    name = escape(str(part["name"]).capitalize())
    if not part["measured"]:
        return f'<h3>{name}</h3><p class="plain">Not measured: {escape(part["note"])}.</p>'
    rows = "".join(
        f'<tr><th scope="row">{escape(_WORDS.get(key, key))}</th>'
        f'<td class="n">{_interval(key, value)}</td></tr>'
        for key, value in part["measures"].items()
    )
    mark = "good" if part["passed"] else "bad"
    word = "passed" if part["passed"] else "failed"
    note = f'<p class="plain">{escape(part["note"])}.</p>' if part["note"] else ""
    return f'<h3>{name}: <span class="{mark}">{word}</span></h3>{note}<table>{rows}</table>'


def _interval(key: str, value: Mapping[str, Any]) -> str:
    if key in _IN_NATS:
        shown = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    else:
        shown = f"{value['value']:.1%} ({value['low']:.1%} to {value['high']:.1%})"
    return f'{shown} <span class="plain">of {value["n"]}</span>'


def _data(file: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in file.items() if key not in ("findings", "moderation")}
    findings = ", ".join(f"{rule}: {count}" for rule, count in (file["findings"] or {}).items())
    facts["findings"] = findings or "none"
    checked = file["moderation"]
    if checked:
        facts["moderation"] = (
            f"{checked['flagged_rows']} of {checked['rows']} rows flagged, "
            f"{checked['left_out']} left out"
        )
    return _facts(facts)


def _curve(points: Sequence[Mapping[str, Any]]) -> str:
    lines = {
        "train_loss": ("training loss", "#2563eb"),
        "valid_loss": ("validation loss", "#d97706"),
        "full_valid_loss": ("full validation loss", "#15803d"),
    }
    values = [p[name] for p in points for name in lines if isinstance(p.get(name), int | float)]
    if not values:
        return "<p>No steps were recorded.</p>"
    top, last = max(values) or 1.0, max(1, points[-1]["step"])
    drawn, legend = "", []
    for name, (words, colour) in lines.items():
        found = [(p["step"], p[name]) for p in points if isinstance(p.get(name), int | float)]
        if found:
            path = " ".join(
                f"{40 + 640 * x / last:.1f},{190 - 175 * y / top:.1f}" for x, y in found
            )
            drawn += f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'
            legend.append(f"{words} ({colour}): last {found[-1][1]:.3f}")
    text = "; ".join(legend)
    axis = (
        '<path d="M40 10V190H680" fill="none" stroke="#888"/>'
        f'<text x="2" y="20" font-size="12" fill="#888">{top:.2f}</text>'
        '<text x="2" y="192" font-size="12" fill="#888">0</text>'
        f'<text x="640" y="206" font-size="12" fill="#888">step {last}</text>'
    )
    picture = (
        f'<svg viewBox="0 0 690 212" role="img" aria-label="{escape(text)}">{axis}{drawn}</svg>'
    )
    return f'{picture}<p class="plain">{escape(text)}</p>'


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}" if body else ""


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(key).replace("_", " "))}</th>'
        f"<td>{escape(_said(value))}</td></tr>"
        for key, value in facts.items()
        if value is not None
    )
    return f"<table>{rows}</table>"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_said(item) for item in value) or "none"
    return str(value)


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            made |= _flat(value, f"{before}{key} ")
        else:
            made[f"{before}{key}"] = value
    return made
