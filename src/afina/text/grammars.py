"""Grammars for answers: JSON of a schema, calls of given tools. Text in llguidance's forms.

`schema_grammar` checks a schema by itself and names what cannot be held; where `strict` is not
asked for, keywords that cannot be held are left out of the grammar, as the wire API allows. White
space in answers is bounded, since a small model may otherwise write nothing else.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llguidance import LLMatcher

from afina.errors import InvalidRequest, UnsupportedField
from afina.text.calls import CallSyntax
from afina.text.schema_bounds import bound
from afina.text.tokenizer import ChatTokenizer

_FREE: Final = {"whitespace_flexible": True, "whitespace_pattern": r"\n?[ \t]{0,16}"}
_MOST_CHARACTERS: Final = 256 * 1024
_NO_OBJECTS: Final = ("array", "string", "number", "integer", "boolean", "null")
_ANY_TEXT: Final = r"/(.|\n)*/"


@dataclass(frozen=True)
class CallableTool:
    """A function that an answer may call. `parameters` is a JSON schema of an object."""

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False
    param: str = "tools"
    """The field in which the request has the schema."""


@dataclass(frozen=True)
class CallRules:
    """Which calls an answer may make, and whether it must."""

    tools: Sequence[CallableTool]
    required: bool = False
    parallel: bool = True


def schema_grammar(schema: Mapping[str, Any], *, strict: bool, param: str) -> str:
    """The grammar of a JSON schema. Raises InvalidRequest that names `param`."""
    return LLMatcher.grammar_from_json_schema(_checked(schema, _FREE, strict, param))


def calls_grammar(
    rules: CallRules, syntax: CallSyntax, tokenizer: ChatTokenizer, schema: str | None = None
) -> str:
    """The grammar of an answer with tools: calls alone where they are required, else text (or
    JSON of `schema`, given as `checked_schema` gives it) or text and then calls. Raises
    InvalidRequest, UnsupportedField."""
    literal = _Literals(tokenizer)
    one = " | ".join(f"call_{i}" for i in range(len(rules.tools)))
    more = f"({literal.of(syntax.between)} ({one}))*" if rules.parallel else ""
    whole = f"({one}) {more} {literal.of(syntax.closing)}"
    lines = ["%llguidance {}"]
    if rules.required:
        lines.append(f"start: {literal.of(syntax.opening)} {whole}")
    elif schema is not None and not syntax.trigger:
        raise UnsupportedField(
            "'response_format' together with 'tools' is not supported for this model: it writes "
            "calls as bare JSON, which could not be told from the answer.",
            param="response_format",
        )
    elif schema is not None:
        lines += [f"start: {literal.of(syntax.opening)} {whole} | json", f"json: %json {schema}"]
    elif not syntax.trigger:
        first = re.escape(syntax.opening[0])
        lines += [f"start: {literal.of(syntax.opening)} {whole} | TEXT |"]
        lines += [f"TEXT: /[^{first}](.|\\n)*/"]
    else:
        rest = literal.of(syntax.opening[len(syntax.trigger) :])
        if literal.is_special(syntax.trigger):
            lines.append(f"start: TEXT ({literal.of(syntax.trigger)} {rest} {whole})?")
        else:
            lines.append(f"start: before {rest} {whole} | TEXT")
            lines.append(f"before[lazy]: BEFORE {literal.of(syntax.trigger)}")
            lines.append(f"BEFORE: {_ANY_TEXT}")
        lines.append(f"TEXT: {_ANY_TEXT}")
    form = {
        "whitespace_flexible": False,
        "item_separator": syntax.item_separator,
        "key_separator": syntax.key_separator,
    }
    for number, tool in enumerate(rules.tools):
        arguments = _checked(_object(tool), form, tool.strict, tool.param)
        named = literal.of(tool.name + syntax.middle)
        lines.append(f"call_{number}: {named} arguments_{number}")
        lines.append(f"arguments_{number}: %json {arguments}")
    return "\n".join(lines) + "\n"


def checked_schema(schema: Mapping[str, Any], *, strict: bool, param: str) -> str:
    """A schema with its white space settled, for `calls_grammar`. Raises InvalidRequest."""
    return _checked(schema, _FREE, strict, param)


def _checked(schema: Mapping[str, Any], form: Mapping[str, Any], strict: bool, param: str) -> str:
    options = {**form, "lenient": not strict}
    try:
        text = json.dumps({**schema, "x-guidance": options}, ensure_ascii=False)
    except RecursionError:
        raise _invalid(param, "it is nested too deeply") from None
    if len(text) > _MOST_CHARACTERS:
        raise _invalid(param, f"it is longer than {_MOST_CHARACTERS} characters")
    text, fault = _held(text, strict)
    if fault:
        raise _invalid(param, fault)
    return text


def _invalid(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid schema for '{param}': {why}.", param=param, code="invalid_json_schema"
    )


@functools.lru_cache(maxsize=256)
def _held(text: str, strict: bool) -> tuple[str, str]:
    """A schema as it can be held, and why it cannot; the latter is empty where it can."""
    schema = json.loads(text)
    try:
        if bound(schema, strict=strict):
            text = json.dumps(schema, ensure_ascii=False)
        grammar = LLMatcher.grammar_from_json_schema(text)
    except RecursionError:
        return text, "it is nested too deeply"
    except ValueError as error:
        return text, str(error)[:200]
    wrong, told = LLMatcher.validate_grammar_with_warnings(grammar)
    return text, str(told[0]).strip().rstrip(".")[:200] if wrong and told else ""


def _object(tool: CallableTool) -> Mapping[str, Any]:
    """Arguments are an object, whether the schema says so or not. Raises InvalidRequest for one
    that says something else."""
    parameters = tool.parameters
    if parameters.get("type") in _NO_OBJECTS:
        raise _invalid(tool.param, "arguments are an object, so its 'type' must be 'object'")
    if any(key in parameters for key in ("type", "$ref", "anyOf", "oneOf", "allOf")):
        return parameters
    return {**parameters, "type": "object"}


class _Literals:
    """Fixed text as llguidance writes it: special tokens by id, the rest as strings."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._special = {p.text: p.id for p in tokenizer.added if p.special}
        found = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, found)) or "(?!)")

    def is_special(self, text: str) -> bool:
        return text in self._special

    def of(self, text: str) -> str:
        pieces, done = [], 0
        for match in self._pattern.finditer(text):
            if match.start() > done:
                pieces.append(json.dumps(text[done : match.start()], ensure_ascii=False))
            pieces.append(f"<[{self._special[match.group()]}]>")
            done = match.end()
        if done < len(text) or not pieces:
            pieces.append(json.dumps(text[done:], ensure_ascii=False))
        return " ".join(pieces)
