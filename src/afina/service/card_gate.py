"""The gate on a card's page: its verdict, and each measure of base and tuned model beside the limit
that it was held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final, NamedTuple

from afina.language import numbers
from afina.language.sentences import Sentence, sentence
from afina.language.strings import Texts
from afina.service.card_tables import counted, mark, plain, section, share, table
from afina.service.gate import faults_in, told_in


class _Row(NamedTuple):
    """What is measured; the measures of tuned model, base and change; the limit held against it."""

    words: str
    tuned: str
    base: str | None = None
    change: str | None = None
    limit: str | None = None


_ORDER: Final = ("quality", "regression", "safety", "memorisation")
_ROWS: Final[Mapping[str, tuple[_Row, ...]]] = {
    "quality": (_Row("loss", "loss", "base_loss", "loss_rise", "max_loss_rise"),),
    "regression": (
        _Row("right", "right", "base_right"),
        _Row("lost", "lost", limit="max_ability_loss"),
    ),
    "safety": tuple(
        _Row(name, name, f"base_{name}", change, limit)
        for name, change, limit in (
            ("harmful_to_harmful", "rise_to_harmful", "max_harm_rise"),
            ("harmful_to_harmless", "rise_to_harmless", "max_harm_rise"),
            ("false_refusals", "rise_of_refusals", "max_refusal_rise"),
        )
    ),
    "memorisation": (
        _Row("word_for_word", "word_for_word", limit="max_memorised"),
        _Row("unguessable_strings", "unguessable_strings"),
    ),
}
_SHARES: Final = frozenset({"max_ability_loss", "max_memorised"})
"""Limits of a share of one; one itself only reports."""
_VERDICTS: Final = {"passed": "good", "failed": "bad"}


def gate_section(texts: Texts, gate: Mapping[str, Any] | None, model: str) -> str:
    """The gate of a card."""
    title = texts("card.gate")
    if gate is None:
        return section(title, f"<p>{escape(texts('card.no_gate'))}</p>")
    policy = f"card.policy_{gate['policy']}"
    head = plain(texts(policy)) if texts.has(policy) else ""
    if gate["model"] not in (None, model):
        head = plain(texts("card.of_other", id=gate["model"])) + head
    report = gate["report"]
    if report is None:
        waits = {"pending": "job.gate_waiting", "waits": "card.waits", "gone": "card.gate_gone"}
        if gate["status"] in waits:
            return section(title, head + f"<p>{escape(texts(waits[gate['status']]))}</p>")
        why = f' <span lang="en">{escape(gate["note"] or "")}</span>'
        return section(title, f"{head}<p>{escape(texts('job.gate_incomplete'))}{why}</p>")
    parts = sorted(report["parts"], key=place)
    return section(
        title,
        head
        + plain(again(texts, gate))
        + _verdict(texts, report)
        + plain(
            texts(
                "card.how",
                suite=report["suite"],
                judge=report["judge"] or texts("card.nobody"),
                took=numbers.span(texts, report["seconds"]),
            )
        )
        + "".join(_part(texts, part, report.get("limits") or {}) for part in parts),
    )


def again(texts: Texts, gate: Mapping[str, Any]) -> str:
    """What there is to say of a gate that was asked again and shows its former report; empty where
    the report is its last word."""
    if gate["report"] is None:
        return ""
    if gate["status"] == "pending":
        return texts("card.asked_again")
    return texts("card.unrun_again", why=gate["note"]) if gate["note"] else ""


def place(part: Mapping[str, Any]) -> int:
    """Where a part stands among the others."""
    return _ORDER.index(part["name"]) if part["name"] in _ORDER else len(_ORDER)


def _verdict(texts: Texts, report: Mapping[str, Any]) -> str:
    name = report["verdict"] if report["verdict"] in _VERDICTS else "incomplete"
    word = escape(texts(f"job.gate_{name}"))
    faults = "".join(_said(sentence(texts, (one,)), "li") for one in faults_in(report))
    line = f'<p class="{_VERDICTS.get(name, "bad")}"><strong>{word}</strong></p>'
    return line + (f"<ul>{faults}</ul>" if faults else "")


def _said(one: Sentence, tag: str, kind: str = "") -> str:
    return f'<{tag} lang="{one.language}"{kind}>{escape(one.text)}</{tag}>'


def _part(texts: Texts, part: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    title, told = escape(part_title(texts, part)), told_in(part)
    note = _said(sentence(texts, told), "p", ' class="plain"') if told else ""
    shown = mark(part_word(texts, part, limits), _kind(part, limits))
    if not part["measured"]:
        return f"<h3>{title} {shown}</h3>{note}"
    rows = part_rows(texts, part, limits)
    measured = table(heads(texts), rows) + plain(details(texts, part))
    return f"<h3>{title} {shown}</h3>{note}{measured}"


def part_title(texts: Texts, part: Mapping[str, Any]) -> str:
    """What a part is called."""
    key = f"card.part_{part['name']}"
    return texts(key) if texts.has(key) else str(part["name"])


def part_word(texts: Texts, part: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """How a part ended."""
    if not part["measured"]:
        return texts("job.gate_part_none")
    if part["passed"] and only_told(part["name"], limits):
        return texts("card.only_told")
    return texts(f"job.gate_part_{'passed' if part['passed'] else 'failed'}")


def _kind(part: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    if not part["measured"] or (part["passed"] and only_told(part["name"], limits)):
        return "plain"
    return "good" if part["passed"] else "bad"


def heads(texts: Texts) -> list[str]:
    """The columns of what a part measured."""
    names = ("measure", "of_base", "of_tuned", "change", "limit")
    return [texts(f"card.{name}") for name in names]


def part_rows(
    texts: Texts, part: Mapping[str, Any], limits: Mapping[str, float]
) -> list[list[str]]:
    """What a part measured, below `heads`."""
    return [
        _row(texts, row, part, limits)
        for row in _ROWS.get(part["name"], ())
        if row.tuned in part["measures"]
    ]


def only_told(name: str, limits: Mapping[str, float]) -> bool:
    """Whether no limit of the part of this name can hold a model."""
    named = [row.limit for row in _ROWS.get(name, ()) if row.limit is not None]
    return bool(named) and all(one in _SHARES and limits.get(one) == 1 for one in named)


def _row(
    texts: Texts,
    row: _Row,
    part: Mapping[str, Any],
    limits: Mapping[str, float],
) -> list[str]:
    measures, in_nats = part["measures"], row.words == "loss"
    rows = part.get("details", {}).get("rows", "")
    file = f"event.file_{rows}"
    words = texts(f"card.{row.words}", rows=texts(file) if texts.has(file) else rows)
    cells = [
        "–" if one is None or one not in measures else _value(texts, measures[one], in_nats)
        for one in (row.base, row.tuned, row.change)
    ]
    return [words, *cells, _limit(texts, row.limit, limits, in_nats)]


def _value(texts: Texts, value: Mapping[str, Any], in_nats: bool) -> str:
    def written(number: float) -> str:
        return numbers.number(texts.language, number, 2) if in_nats else share(texts, number)

    return texts(
        "card.value",
        value=written(value["value"]),
        low=written(value["low"]),
        high=written(value["high"]),
        n=numbers.number(texts.language, value["n"]),
    )


def _limit(texts: Texts, name: str | None, limits: Mapping[str, float], in_nats: bool) -> str:
    if name is None:
        return texts("card.only_told")
    if name not in limits:
        return texts("card.not_kept")
    limit = limits[name]
    if name in _SHARES:
        if limit == 1:
            return texts("card.only_told")
        return texts("card.limit_share", limit=share(texts, limit))
    written = numbers.number(texts.language, limit, 2) if in_nats else share(texts, limit)
    return texts("card.limit_rise", limit=written)


def details(texts: Texts, part: Mapping[str, Any]) -> str:
    """What else a part counted, in a sentence; empty where nothing."""
    counts = part.get("details", {})
    if topics := counts.get("topics"):
        told = ", ".join(
            texts("card.topic", topic=_topic(texts, name), **found)
            for name, found in sorted(topics.items())
        )
        return texts("card.topics", found=told)
    if categories := counts.get("categories"):
        return texts("card.categories", found=counted(texts, categories.items()))
    return ""


def _topic(texts: Texts, name: str) -> str:
    key = f"card.topic_{name}"
    return texts(key) if texts.has(key) else name
