"""A model's card as the README.md that travels with its weights: the head that model hubs read,
and what people ask first. It names no key and no person, since it is made to be handed on; the
whole card stands beside it as JSON and as a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from afina.language import numbers
from afina.language.sentences import sentence
from afina.language.strings import LANGUAGES, Texts
from afina.service.card_gate import (
    again,
    details,
    heads,
    part_rows,
    part_title,
    part_word,
    place,
)
from afina.service.card_page import (
    base_facts,
    card_page,
    data_facts,
    method_facts,
    parity_facts,
)
from afina.service.card_tables import day
from afina.service.gate import faults_in, told_in

README: Final = "README.md"
CARD_JSON: Final = "card.json"
CARD_HTML: Final = "card.html"
CARD_FILES: Final = (README, CARD_JSON, CARD_HTML)
"""What a model's card is called beside its weights."""
_ADAPTERS: Final = ("lora", "dora")
_PLAIN: Final = re.compile(r"([\\`*_\[\]<>|#])")
_HEXES: Final = re.compile(r"[0-9a-f]{40,}")


class Form(StrEnum):
    """What lies beside the card."""

    STORED = "stored"
    """The tune's own files: an adapter for a base, or weights that differ from it."""
    WHOLE = "whole"
    """Base and tune as one model, for transformers."""
    GGUF = "gguf"
    """Base and tune as one model, for llama.cpp."""
    GGUF_ADAPTER = "gguf-adapter"


def card_files(
    card: Mapping[str, Any], form: Form = Form.STORED, language: str = LANGUAGES[0]
) -> dict[str, bytes]:
    """The card in its three forms, by the names of files."""
    whole = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    return {
        README: card_readme(card, form, language).encode(),
        CARD_JSON: whole.encode(),
        CARD_HTML: card_page(card, language).encode(),
    }


def card_readme(
    card: Mapping[str, Any], form: Form = Form.STORED, language: str = LANGUAGES[0]
) -> str:
    """The README.md of a card that `afina.service.card` made."""
    texts = Texts(language)
    made = texts(
        "card.made",
        day=day(card["created_at"]),
        now=day(card["written_at"]),
        by=card["written_by"],
    )
    state = texts(f"models.state_{card['state']}")
    parts = [
        _head(card, form),
        f"# {_text(card['model'])}",
        f"**{_text(state)}** · {_text(made)}",
        texts("card.beside", json=CARD_JSON, page=CARD_HTML),
        *_section(texts("card.base"), _facts(base_facts(texts, card["base"]))),
        *(
            part
            for file in card["data"]
            for part in _section(texts(f"card.{file['which']}"), _facts(data_facts(texts, file)))
        ),
        *_section(texts("job.method"), _facts(method_facts(texts, card["method"]))),
        *_section(texts("card.gate"), "\n\n".join(filter(None, _gate(texts, card["gate"])))),
        *_section(texts("card.parity"), _parity(texts, card["parity"])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(card: Mapping[str, Any], form: Form) -> str:
    """The block that hubs read. JSON's strings and lists are YAML too."""
    base, kind = card["base"], card["method"]["kind"]
    adapter = form is not Form.WHOLE and form is not Form.GGUF and kind in _ADAPTERS
    found: dict[str, Any] = {}
    if base.get("licence"):
        found["license"] = str(base["licence"]).lower()
    if base.get("hub_id"):
        found["base_model"] = base["hub_id"]
        found["base_model_relation"] = "adapter" if adapter else "finetune"
    if form is Form.WHOLE:
        found["library_name"] = "transformers"
    elif form is Form.STORED and adapter:
        found["library_name"] = "peft"
    found["pipeline_tag"] = "text-generation"
    forms = ["gguf"] if form in (Form.GGUF, Form.GGUF_ADAPTER) else []
    found["tags"] = ["afina", str(kind), *forms]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in found.items())
    return "\n".join(["---", *lines, "---"])


def _section(title: str, body: str) -> tuple[str, ...]:
    return (f"## {_text(title)}", body) if body else ()


def _facts(found: Iterable[tuple[str, str | None]]) -> str:
    return "\n".join(
        f"- {_text(name)}: {_text(value)}" for name, value in found if value is not None
    )


def _gate(texts: Texts, gate: Mapping[str, Any] | None) -> Iterator[str]:
    if gate is None:
        yield _text(texts("card.no_gate"))
        return
    report = gate["report"]
    if report is None:
        waits = {"pending": "job.gate_waiting", "waits": "card.waits", "gone": "card.gate_gone"}
        yield _text(texts(waits.get(gate["status"], "job.gate_incomplete")))
        if gate["status"] not in waits and gate["note"]:
            yield _text(gate["note"])
        return
    yield _text(again(texts, gate))
    known = ("passed", "failed")
    verdict = report["verdict"] if report["verdict"] in known else "incomplete"
    yield f"**{_text(texts(f'job.gate_{verdict}'))}**"
    yield "\n".join(f"- {_text(sentence(texts, (one,)).text)}" for one in faults_in(report))
    took = numbers.span(texts, report["seconds"])
    judge = report["judge"] or texts("card.nobody")
    yield _text(texts("card.how", suite=report["suite"], judge=judge, took=took))
    limits = report.get("limits") or {}
    for part in sorted(report["parts"], key=place):
        yield f"### {_text(part_title(texts, part))}: {_text(part_word(texts, part, limits))}"
        if told := told_in(part):
            yield _text(sentence(texts, told).text)
        if part["measured"]:
            yield _table(heads(texts), part_rows(texts, part, limits))
            yield _text(details(texts, part))


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        f"| {' | '.join(cell if cell == '---' else _text(cell) for cell in line)} |"
        for line in lines
    )


def _parity(texts: Texts, parity: Mapping[str, Any] | None) -> str:
    if not parity or "positions" not in parity:
        return _text(texts("card.parity_none"))
    verdict = texts("card.parity_holds" if parity["passed"] else "card.parity_fails")
    return f"{_text(verdict)}\n\n{_facts(parity_facts(texts, parity))}"


def _text(text: str) -> str:
    """Words that Markdown shows as they are, in one line; a hash stays in a frame."""
    return _HEXES.sub(r"`\g<0>`", _PLAIN.sub(r"\\\1", " ".join(text.split())))
