"""What somebody probably meant who wrote a field that there is not: its near name, or the name that
another operation of the wire API gives to the same thing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel

_DEEP: Final = 4
_NEAR: Final = 0.75
_BEGINNING: Final = 5
"""So many characters of a name are enough to guess the rest of it."""
_ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "messages": ("input",),
    "input": ("messages",),
    "prompt": ("messages", "input"),
    "response_format": ("text",),
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
    "max_output_tokens": ("max_completion_tokens",),
    "epochs": ("hyperparameters",),
    "training_data": ("training_file",),
}
_SHAPES: Final = (
    (
        re.compile(r"method\.hyperparameters"),
        "They stand below the method's name: 'method.supervised.hyperparameters'.",
    ),
    (
        re.compile(r"tools\[\d+\]\.(name|description|parameters|strict)"),
        'In chat completions a tool is {"type": "function", "function": {"name": …}}.',
    ),
)


def hint_for(model: type[BaseModel], where: str) -> str | None:
    """A sentence that names the field that was meant; None where nothing is near. `where` is the
    unknown field's path, such as `hyperparameters.learning_rate`."""
    for pattern, sentence in _SHAPES:
        if pattern.fullmatch(where):
            return sentence
    shown = where.rpartition(".")[0]
    parent, _, name = re.sub(r"\[\d+\]", "", where).rpartition(".")
    places = _places(model)
    if not parent:
        for other in _ELSEWHERE.get(name, ()):
            if other in places:
                return f"Here it is '{other}'."
    if f"{parent}.{name}" in places:  # a message of another kind has it: it is no slip
        return None
    names = {place.rpartition(".")[2] for place in places}
    near = get_close_matches(name, names, n=1, cutoff=_NEAR) or sorted(
        known for known in names if len(name) >= _BEGINNING and known.startswith(name)
    )
    if not near:
        return None
    found = sorted(place for place in places if place.rpartition(".")[2] == near[0])
    beside = [place for place in found if place.rpartition(".")[0] == parent]
    meant = f"{shown}.{near[0]}" if beside and parent else (beside or found)[0]
    return f"Did you mean '{meant}'?"


@functools.cache
def _places(model: type[BaseModel]) -> tuple[str, ...]:
    """The paths of a shape's fields, and of those within them."""
    return tuple(_walk(model, "", _DEEP))


def _walk(model: type[BaseModel], before: str, deep: int) -> Iterator[str]:
    for name, field in model.model_fields.items():
        place = before + (field.alias or name)
        yield place
        if deep > 1:
            for inner in _models_in(field.annotation):
                yield from _walk(inner, f"{place}.", deep - 1)


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models_in(part)
