"""From a request's JSON to one of our strict shapes, or to a refusal that names the field.

pydantic finds the fault; here it becomes the sentence, the code and the `param` (such as
`messages[0].content`) that the hosted service uses. Values are never echoed: they may be a user's
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from afina.errors import InvalidRequest, UnknownField, UnsupportedField
from afina.service.hints import hint_for

_KEY = "[key]"
"""pydantic's last step where the name of a pair is wrong and not its value."""
NAME_SHOWN = 64
"""A name from the request is shown no longer than this."""


class Wire(BaseModel):
    """A request's shape: unknown fields and wrong types are refused, never bent."""

    # Validators are built at their first use: a start that builds them all takes 0.2 s longer.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True
    )


class LaxWire(BaseModel):
    """As `Wire`, for values that travel as text: queries and forms."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: object) -> M:
    """`data` as a `model`. Raises UnknownField or InvalidRequest for the first fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise refusal(error, data, model) from None


def fault(code: str, say: str) -> PydanticCustomError:
    """A fault that a validator of ours raises: one of the wire's codes and half a sentence."""
    return PydanticCustomError(code, "{say}", {"say": say})


def refusal(
    error: ValidationError, data: object, model: type[BaseModel] | None = None
) -> InvalidRequest:
    """The first fault of `error` in the words of the wire; `model` is what `data` should be."""
    details = error.errors(include_url=False, include_context=True)
    details.sort(key=lambda d: d["type"] == "extra_forbidden", reverse=True)
    found = _refusal(_inside(details, data), data)
    if isinstance(found, UnknownField) and model is not None and found.param is not None:
        found.remedy = hint_for(model, found.param)
    return found


def _inside(details: Sequence[ErrorDetails], data: object) -> ErrorDetails:
    """The first fault. Where a value may be of several kinds and is a list or an object that one of
    them takes, what is wrong in it says more than that it is none of the others."""
    first = details[0]
    where, value = _place(first, data)
    if first["type"] in _TYPES and isinstance(value, list | Mapping):
        for other in details[1:]:
            place, _ = _place(other, data)
            if place != where and place.startswith(where):
                return other
    return first


def path(parts: Sequence[str | int]) -> str:
    """`messages[0].content`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:NAME_SHOWN]}" if text else part[:NAME_SHOWN]
    return text


def _refusal(detail: ErrorDetails, data: object) -> InvalidRequest:
    kind = detail["type"]
    where, value = _place(detail, data)
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return UnknownField(f"Unknown parameter: '{where}'.", param=where)
    if kind == "missing":
        return InvalidRequest(
            f"Missing required parameter: '{where}'.",
            param=where,
            code="missing_required_parameter",
        )
    if kind == "union_tag_not_found":
        where = f"{where}.{str(context.get('discriminator', 'type')).strip(chr(39))}"
        return InvalidRequest(
            f"Missing required parameter: '{where}'.",
            param=where,
            code="missing_required_parameter",
        )
    if kind == "union_tag_invalid":
        where = f"{where}.{str(context.get('discriminator', 'type')).strip(chr(39))}"
        expected = context.get("expected_tags", "")
        return _invalid(where, "invalid_value", f"supported values are: {expected}")
    if kind == "unsupported_parameter":
        return UnsupportedField(f"'{where}' is not supported here: {context['say']}", param=where)
    if kind == "string_pattern_mismatch":
        return _invalid(
            where,
            "invalid_value",
            f"characters or a form that are not allowed; it must match {context.get('pattern')}",
        )
    if kind in _LIMITS:
        return _limit(
            where, kind, value, context, "Invalid" if _of_value(detail) else "Invalid key in"
        )
    if kind in _TYPES:
        return _wrong_type(where, _TYPES[kind], value)
    say = str(context.get("say") or _VALUES.get(kind, "{}").format(context.get("expected", "")))
    code = kind if "say" in context else "invalid_value"
    return _invalid(where, code, say or "the value is not allowed")


def _place(detail: ErrorDetails, data: object) -> tuple[str, object]:
    """Where the fault is in `data`: pydantic's path without the names of a union's branches."""
    parts: list[str | int] = []
    here = data
    loc = detail["loc"]
    if not _of_value(detail):
        return path(loc[:-2]), loc[-2]
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        if _leads_on(here, part) and (last or not _is_tag(here, part, loc[number + 1])):
            here = here[part]  # type: ignore[index]
        elif not (detail["type"] == "missing" and last):
            continue
        parts.append(part)
    return path(parts), here


def _of_value(detail: ErrorDetails) -> bool:
    """Not so where the name of a pair is wrong."""
    loc = detail["loc"]
    return not (len(loc) > 1 and loc[-1] == _KEY and detail["input"] == loc[-2])


def _leads_on(here: object, part: str | int) -> bool:
    if isinstance(part, str):
        return isinstance(here, Mapping) and part in here
    return isinstance(here, list) and part < len(here)


def _is_tag(here: object, part: str | int, following: str | int) -> bool:
    """Whether `part`, though a key of `here`, is the name of a branch: what follows lies beside it
    and not below."""
    below = here[part]  # type: ignore[index]
    return _leads_on(here, following) and not _leads_on(below, following)


def _invalid(where: str, code: str, say: str) -> InvalidRequest:
    opening = "Invalid type for" if code == "invalid_type" else "Invalid value for"
    subject = f" '{where}'" if where else " the request"
    return InvalidRequest(f"{opening}{subject}: {say}.", param=where or None, code=code)


def _wrong_type(where: str, expected: str, value: object) -> InvalidRequest:
    return _invalid(where, "invalid_type", f"expected {expected}, but got {named(value)} instead")


def named(value: object) -> str:
    """What kind of JSON value this is, with its article."""
    if value is None:
        return "null"
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    return "something else"


_NAMES: list[tuple[type, str]] = [
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a decimal number"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
]

_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of a reasonable size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}

_VALUES = {
    "literal_error": "supported values are: {}",
}


def _limit(
    where: str, kind: str, value: object, context: Mapping[str, Any], opening: str
) -> InvalidRequest:
    key, side, relation = _LIMITS[kind]
    limit = context[key]
    if kind.startswith("string"):
        noun, thing = "string", "a string with length"
        size: object = len(value) if isinstance(value, str) else "?"
    elif kind in ("too_long", "too_short"):
        noun, thing = ("object", "an object with") if isinstance(value, dict) else ("array", "")
        thing = thing or "an array with length"
        size = len(value) if isinstance(value, list | dict) else "?"
    else:
        noun = "decimal" if isinstance(limit, float) or isinstance(value, float) else "integer"
        code = f"{noun}_{side}_value"
        text = f"{noun} {side.replace('_', ' ')} value: expected a value {relation} {limit}"
        if side == "above_max" and where.endswith(("_time", "_at", "after", "before")):
            text += "; times are seconds since 1970, not milliseconds"
        return InvalidRequest(f"Invalid '{where}': {text}.", param=where, code=code)
    if size == 0 and noun == "array":
        text = f"empty array: expected at least {limit}"
        return InvalidRequest(f"Invalid '{where}': {text}.", param=where, code="empty_array")
    measure = "properties" if noun == "object" else "length"
    code = f"{noun}_{side}_{measure}"
    text = f"{noun} {relation}: the limit is {limit}, but got {thing} {size}"
    return InvalidRequest(f"{opening} '{where}': {text}.", param=where, code=code)


_LIMITS = {
    "greater_than_equal": ("ge", "below_min", ">="),
    "greater_than": ("gt", "below_min", ">"),
    "less_than_equal": ("le", "above_max", "<="),
    "less_than": ("lt", "above_max", "<"),
    "string_too_long": ("max_length", "above_max", "too long"),
    "string_too_short": ("min_length", "below_min", "too short"),
    "too_long": ("max_length", "above_max", "too long"),
    "too_short": ("min_length", "below_min", "too short"),
}
