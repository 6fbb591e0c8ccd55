"""A model's card as one HTML page that needs no server, script or other file, in the reader's
language. Names of files and settings stay as they were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from afina.language import numbers
from afina.language.strings import LANGUAGES, Texts
from afina.service.card_gate import gate_section
from afina.service.card_tables import (
    counted,
    day,
    facts,
    mark,
    measured,
    plain,
    section,
    share,
)

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser needs to show it: nothing but its own style."""
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c1c1c;background:#fff}h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.15rem;
margin-top:2rem;border-bottom:1px solid #ddd}h3{font-size:1rem;margin:1.5rem 0 .25rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .75rem .25rem 0;
vertical-align:top;font-weight:400;overflow-wrap:anywhere}th{color:#555;min-width:12rem}
.wide td,.wide th{border-bottom:1px solid #eee;min-width:6rem}td{font-variant-numeric:tabular-nums}
.good{color:#0a6b2d}.bad{color:#a11212}.plain{color:#555}svg{width:100%;height:auto}
.tag{border:1px solid;border-radius:.3rem;padding:.05rem .5rem;font-weight:600;font-size:.875rem}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}th,.plain{color:#aaa}
h2,.wide td,.wide th{border-color:#444}.good{color:#6fd08c}.bad{color:#ff8f8f}}
@media(max-width:40rem){th,.wide td,.wide th{display:block;min-width:0;border:0;padding-bottom:0}
td{display:block}.wide thead{display:none}.wide td::before{content:attr(data-label) ": ";
color:#777}.wide tbody th{padding-top:.75rem;font-weight:600}}
@media print{body{color:#000;background:#fff;margin:0;max-width:none}section{break-inside:avoid}}
"""
_LINES: Final = {
    "train_loss": ("train", "#2563eb"),
    "valid_loss": ("valid", "#d97706"),
    "full_valid_loss": ("full_valid", "#15803d"),
}
_HASHES: Final = {"template_sha256": "template_sha", "data_sha256": "data_sha"}
_ELSEWHERE: Final = frozenset({"shards", "template_sha256", "method", "rendered_at", "kind"})
"""Settings of a manifest that are said in another place, or mean nothing outside the machine."""
_NAMED: Final[Mapping[str, str]] = {
    "n_epochs": "tune.n_epochs",
    "batch_size": "tune.batch_size",
    "learning_rate_multiplier": "tune.learning_rate_multiplier",
    "seed": "tune.seed",
    "rank": "tune.rank",
}


def card_page(card: Mapping[str, Any], language: str = LANGUAGES[0]) -> str:
    """The page of a card that `afina.service.card` made."""
    texts = Texts(language)
    state = card["state"]
    tag = mark(texts(f"models.state_{state}"), "bad" if state == "held" else "good")
    made = texts(
        "card.made",
        day=day(card["created_at"]),
        now=day(card["written_at"]),
        by=card["written_by"],
    )
    gone = "" if card["method"]["job"] else plain(texts("card.job_gone"))
    body = "".join(
        [
            f'<h1>{escape(card["model"])}</h1><p>{tag} <span class="plain">{escape(made)}</span>',
            f"</p>{gone}",
            section(texts("card.history"), _history(texts, card)),
            gate_section(texts, card["gate"], card["model"]),
            section(texts("card.base"), _base(texts, card["base"])),
            *(
                section(texts(f"card.{file['which']}"), facts(data_facts(texts, file)))
                for file in card["data"]
            ),
            section(texts("job.method"), facts(method_facts(texts, card["method"]))),
            section(texts("job.curves"), _curve(texts, card["curves"])),
            section(texts("card.parity"), _parity(texts, card["parity"])),
        ]
    )
    return (
        f'<!doctype html><html lang="{texts.language}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(texts('card.title', id=card['model']))}</title>"
        f"<style>{_STYLE}</style><main>{body}</main></html>"
    )


def _history(texts: Texts, card: Mapping[str, Any]) -> str:
    gate, first = card["gate"], "by_nobody"
    if gate is not None and gate["policy"] == "hold":
        # What the gate says today may be another word than its first: each change turned the state.
        held = card["state"] == "held"
        if card["history"]:
            held = card["history"][0]["state"] == "released"
        first = "by_gate_held" if held else "by_gate_released"
        first = {"waits": "waits", "gone": "by_gate"}.get(gate["status"], first)
    said = [f"{day(card['created_at'])}: {texts(f'card.{first}')}"]
    for one in card["history"]:
        kind = "user" if one["user"] else "key"
        who = texts(f"card.who_{kind}", id=one[kind])
        if one.get("by") == "gate":
            who = texts("card.who_gate", who=who)
        what = texts(
            "card.changed_held" if one["state"] == "held" else "card.changed_released", who=who
        )
        said.append(f"{day(one['at'])}: {what}")
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>"


def _base(texts: Texts, base: Mapping[str, Any]) -> str:
    gone = "" if base["here"] else plain(texts("card.not_here"))
    return facts(base_facts(texts, base)) + gone


def base_facts(texts: Texts, base: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What the model was tuned from, as names and values."""
    if not base["here"]:
        return [(texts("ui.name"), base["id"])]
    return [
        (texts("ui.name"), base["id"]),
        (texts("card.hub"), base["hub_id"]),
        (texts("models.licence"), base["licence"] or texts("card.unknown")),
        (texts("models.parameters"), numbers.number(texts.language, base["parameters"])),
        (texts("card.weights_sha"), base["sha256"]),
    ]


def data_facts(texts: Texts, file: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """What is known of a file that the model was tuned on, as names and values."""

    def n(count: int | None) -> str:
        return numbers.number(texts.language, count or 0)

    if file.get("filename"):
        yield texts("ui.name"), f"{file['filename']} ({file['file']})"
    else:
        yield texts("ui.name"), texts("card.file_gone", id=file["file"])
    yield texts("card.sha"), file["sha256"]
    if file["rows"] is not None:
        used = texts("card.rows_used", used=n(file["rows_used"]), rows=n(file["rows"]))
        yield texts("card.rows"), used
    found = "; ".join(_finding(texts, rule, n(c)) for rule, c in (file["findings"] or {}).items())
    yield texts("card.findings"), found or texts("card.findings_none")
    checked = file["moderation"]
    told = texts("card.unmoderated")
    if checked:
        told = texts(
            "card.flagged",
            flagged=n(checked["flagged_rows"]),
            rows=n(checked["rows"]),
            judge=checked["model"],
            left=n(checked["left_out"]),
        )
        kinds = counted(texts, (checked["categories"] or {}).items())
        told += f" ({kinds})" if kinds else ""
    yield texts("card.moderation"), told
    yield texts("card.redaction"), _redaction(texts, file.get("redaction"), n)


def _redaction(texts: Texts, done: Mapping[str, Any] | None, n: Any) -> str:
    if done is None:
        return texts("card.unredacted")
    rows, found = n(done["rows"]), counted(texts, (done["places"] or {}).items())
    if not found:
        return texts("card.redacted_none", rows=rows)
    return texts("card.redacted", changed=n(done["rows_changed"]), rows=rows, found=found)


def _finding(texts: Texts, rule: str, count: str) -> str:
    key = f"rule.{rule.replace('-', '_')}"
    what = f": {texts(key).partition('. ')[0].rstrip('.')}" if texts.has(key) else ""
    return f"{count} × {rule}{what}"


def method_facts(texts: Texts, method: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """How the model was tuned, as names and values."""
    name, kind = f"job.method_{method['method']}", f"tune.kind_{method['kind']}"
    yield texts("job.method"), texts(name) if texts.has(name) else method["method"]
    yield texts("tune.kind"), texts(kind) if texts.has(kind) else method["kind"]
    wishes = method["afina"] or {}
    settings = {**(wishes.get("tuning") or {}), **method["settings"]}
    settings |= {key: wishes.get(key) for key in ("early_stopping", "best_checkpoint")}
    for key, value in settings.items():
        if key not in _ELSEWHERE and value is not None and value is not False:
            yield _label(texts, key), _written(texts, value)
    tokens = method["trained_tokens"]
    if tokens is not None:
        yield texts("job.trained_tokens"), numbers.number(texts.language, tokens)
    yield texts("models.job"), method["job"]
    yield texts("card.manifest"), method["manifest"]
    for key, label in _HASHES.items():
        yield texts(f"card.{label}"), method[key]


def _label(texts: Texts, key: str) -> str:
    name = _NAMED.get(key, f"card.{key}")
    return texts(name) if texts.has(name) else key.replace("_", " ")


def _written(texts: Texts, value: Any) -> str:
    if value is True:
        return texts("card.yes")
    if isinstance(value, int | float):
        whole = float(value).is_integer()
        return numbers.number(texts.language, value, 0 if whole else 3)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or texts("card.none")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _curve(texts: Texts, points: Sequence[Mapping[str, Any]]) -> str:
    values = [p[name] for p in points for name in _LINES if isinstance(p.get(name), int | float)]
    if not values:
        return plain(texts("card.no_steps"))
    top, last = max(values) or 1.0, max(1, points[-1]["step"])
    drawn, legend, spoken = "", "", []
    for name, (key, colour) in _LINES.items():
        found = [(p["step"], p[name]) for p in points if isinstance(p.get(name), int | float)]
        if not found:
            continue
        path = " ".join(f"{40 + 640 * x / last:.1f},{190 - 175 * y / top:.1f}" for x, y in found)
        drawn += f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'
        final = numbers.number(texts.language, found[-1][1], 3)
        said = texts("card.last", name=texts(f"job.{key}"), value=final)
        spoken.append(said)
        legend += f'<span style="color:{colour}">━</span> {escape(said)} '
    axis = (
        '<path d="M40 10V190H680" fill="none" stroke="#888"/>'
        f'<text x="2" y="20" font-size="12" fill="#888">'
        f"{numbers.number(texts.language, top, 2)}</text>"
        '<text x="2" y="192" font-size="12" fill="#888">0</text>'
        f'<text x="600" y="206" font-size="12" fill="#888">'
        f"{escape(texts('ui.steps', n=numbers.number(texts.language, last)))}</text>"
    )
    label = escape("; ".join(spoken))
    picture = f'<svg viewBox="0 0 690 212" role="img" aria-label="{label}">{axis}{drawn}</svg>'
    return f'{picture}<p class="plain">{legend}</p>'


def _parity(texts: Texts, parity: Mapping[str, Any] | None) -> str:
    if not parity or "positions" not in parity:
        return plain(texts("card.parity_none"))
    verdict = texts("card.parity_holds" if parity["passed"] else "card.parity_fails")
    return f"<p>{escape(verdict)}</p>" + facts(parity_facts(texts, parity))


def parity_facts(texts: Texts, parity: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What was compared between trainer and engine, as names and values."""
    limits = {name: measured(texts, parity[f"{name}_limit"]) for name in ("mean_kl", "margin")}
    place = numbers.number(texts.language, parity["positions"])
    return [
        (texts("card.positions"), texts("card.of_prompts", n=place, prompts=parity["prompts"])),
        (
            texts("card.mean_kl", limit=limits["mean_kl"]),
            measured(texts, parity["mean_kl"]),
        ),
        (texts("card.agreement"), share(texts, parity["agreement"])),
        (
            texts("card.largest_margin", limit=limits["margin"]),
            measured(texts, parity["largest_margin"]),
        ),
        (texts("card.largest_difference"), measured(texts, parity["largest_difference"])),
        (texts("card.precision"), f"{parity['precision']}, {parity['engine_precision']}"),
    ]
