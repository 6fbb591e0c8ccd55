"""What the platform says by name, in a reader's language: sentences of `afina.domain.sayings` by
the texts of `strings.toml`, their values as the language writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afina.domain.sayings import Said, Value, joined
from afina.language import numbers
from afina.language.strings import Texts


@dataclass(frozen=True)
class Sentence:
    """A text and the language it is in."""

    text: str
    language: str


def sentence(texts: Texts, said: Sequence[Said]) -> Sentence:
    """Sentences of events or of the gate; English where they are somebody else's words."""
    language = "en" if all(one.name == "words" for one in said) else texts.language
    return Sentence(in_words(texts, "event", said), language)


def in_words(texts: Texts, section: str, said: Sequence[Said]) -> str:
    """The sentences of one section, one after the other; empty where one is not known."""
    if not said or not all(texts.has(f"{section}.{one.name}") for one in said):
        return ""
    shown = [
        texts(f"{section}.{one.name}", **{k: _written(texts, k, v) for k, v in one.values.items()})
        for one in said
    ]
    return joined(shown) if section == "event" else " ".join(shown)


def _written(texts: Texts, name: str, value: Value) -> str:
    """One value as the language writes it."""
    if isinstance(value, int | float):
        if name.endswith("_s"):
            return numbers.span(texts, value)
        if name.endswith("_bytes"):
            return numbers.size(texts.language, int(value))
        if name.endswith("_share"):
            return f"{numbers.number(texts.language, 100 * value)}\N{NO-BREAK SPACE}%"
        if name.endswith("_nats"):
            return numbers.number(texts.language, value, 2)
        return numbers.number(texts.language, value, 0 if float(value).is_integer() else 1)
    if name == "found" and texts.language != "en":
        return ", ".join(_counted(texts, one) for one in value.split(", "))
    named = {
        "rule": f"rule.{value.replace('-', '_')}",
        "file": f"event.file_{value}",
        "what": f"event.what_{value}",
    }
    key = named.get(name)
    return texts(key) if key is not None and texts.has(key) else value


def _counted(texts: Texts, found: str) -> str:
    """`3 hate/threatening` by the name that the reader knows the kind by."""
    count, _, kind = found.partition(" ")
    key = f"mark.{kind.replace('/', '_').replace('-', '_')}"
    return f"{count} {texts(key) if texts.has(key) else kind.upper()}"
