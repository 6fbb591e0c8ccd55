"""Calls of tools: learned from templates, held by grammars, read back from answers in any pieces."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from tests.tiny_chat import FAMILIES, TOOLS_FAMILY, Family, byte_level, make_folder
from tokenizers import AddedToken

from afina.errors import InvalidRequest, UnsupportedField
from afina.text.calls import OWN, CallArguments, CallBegun, CallReader, CallSyntax, Event, Said
from afina.text.grammars import (
    CallableTool,
    CallRules,
    calls_grammar,
    checked_schema,
    schema_grammar,
)
from afina.text.renderer import Renderer

_HEAD = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- for tool in tools %}{{- tool | tojson }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content %}{{- message.content }}{%- endif %}"
)
_TAIL = (
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
HERMES = (
    "{%- for call in message.tool_calls or [] %}"
    "{%- if (loop.first and message.content) or not loop.first %}{{- '\n' }}{%- endif %}"
    '{{- \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}\n</tool_call>' }}{%- endfor %}"
)
THINKING = (
    "{%- if message.tool_calls and not message.content %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}" + HERMES
)
BARE = (
    "{%- for call in message.tool_calls or [] %}"
    '{{- \'{"name": "\' + call.function.name + \'", "parameters": \' }}'
    "{{- (call.function.arguments | tojson) + '}' }}{%- if not loop.last %}{{- '; ' }}{%- endif %}"
    "{%- endfor %}"
)
MARKED = (
    "{%- if message.tool_calls %}{{- '[TOOL_CALLS][' }}"
    "{%- for call in message.tool_calls %}"
    '{{- \'{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}"
    "{%- endfor %}{{- ']' }}{%- endif %}"
)
XML = (
    "{%- for call in message.tool_calls or [] %}{{- '<f=' + call.function.name + '>' }}"
    "{%- for key, value in call.function.arguments | items %}{{- '<p=' + key + '>' + value | string }}"
    "{%- endfor %}{%- endfor %}"
)
_CONTROL = tuple(
    AddedToken(text, special=True, normalized=False)
    for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]")
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [CallableTool("weather", SCHEMA), CallableTool("stop-all", {})]


def renderer_of(folder: Path, calls: str) -> Renderer:
    family = Family(_HEAD + calls + _TAIL, _CONTROL, byte_level, None, "<|im_end|>")
    return Renderer.load(make_folder(folder, family))


def read(syntax: CallSyntax, text: str, seed: int | None = None) -> list[Event]:
    """The events of a whole text, or of the same in random pieces, told as if it were whole."""
    reader, events = CallReader(syntax), list[Event]()
    draw = random.Random(seed)
    while text:
        size = len(text) if seed is None else draw.randint(1, 4)
        events += reader.push(text[:size])
        text = text[size:]
    joined: list[Event] = []
    for event in [*events, *reader.finish()]:
        last = joined[-1] if joined else None
        if isinstance(event, Said) and isinstance(last, Said):
            joined[-1] = Said(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments):
            joined[-1] = CallArguments(event.index, last.text + event.text)
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize(
    ("template", "opening", "trigger", "closing"),
    [
        (HERMES, '<tool_call>\n{"name": "', "<tool_call>", "}\n</tool_call>"),
        (THINKING, '<tool_call>\n{"name": "', "<tool_call>", "}\n</tool_call>"),
        (BARE, '{"name": "', "", "}"),
        (MARKED, '[TOOL_CALLS][{"name": "', "[TOOL_CALLS]", "}]"),
    ],
)
def test_the_form_of_calls_is_learned_from_the_template(
    tmp_path: Path, template: str, opening: str, trigger: str, closing: str
) -> None:
    renderer = renderer_of(tmp_path, template)
    assert renderer.tools_format == "native"
    syntax = renderer.calls
    assert (syntax.opening, syntax.trigger, syntax.closing) == (opening, trigger, closing)
    chat: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    calls = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "stop-all", "arguments": "{}"}},
    ]
    answer = {"role": "assistant", "content": None, "tool_calls": calls}
    tools = [{"type": "function", "function": {"name": t.name}} for t in TOOLS]
    row = renderer.training_row([*chat, answer], tools)
    trained = [i for i, learned in zip(row.ids, row.learned, strict=True) if learned]
    marks = set(renderer.call_tokens)
    assert marks == ({3} if "TOOL_CALLS" in opening else set())
    text = "".join(
        renderer.tokenizer.token_bytes(i).decode()
        for i in trained[:-1]
        if i in marks or i not in renderer.tokenizer.control_ids
    )
    told = read(syntax, text.removeprefix("<think>\n\n</think>\n\n"))
    assert told == [
        CallBegun(0, "weather"),
        CallArguments(0, '{"x": 1}'),
        CallBegun(1, "stop-all"),
        CallArguments(1, "{}"),
    ]


def test_calls_that_are_no_json_are_written_in_our_own_form(tmp_path: Path) -> None:
    renderer = renderer_of(tmp_path, XML)
    assert renderer.calls == OWN
    assert renderer.tools_format != "native"


def test_a_name_may_stand_without_quotation_marks(tmp_path: Path) -> None:
    syntax = Renderer.load(make_folder(tmp_path, TOOLS_FAMILY)).calls
    assert (syntax.opening, syntax.middle) == ("<tool_call>", " ")
    assert read(syntax, 'Well.\n<tool_call>f {"a": "}"}') == [
        Said("Well."),
        CallBegun(0, "f"),
        CallArguments(0, '{"a": "}"}'),
    ]


TALK = [
    'I look.\n<tool_call>{"name": "weather", "arguments": {"city": "a\\"}]"}}</tool_call>\n'
    '<tool_call>{"name": "stop-all", "arguments": {}}</tool_call>',
    "no calls, but a <tool and a <tool_cal",
    "trailing  \n\n",
    '<tool_call>{"name": "weather", "arguments": {"city": "cut',
    '<tool_call>{"name": "wea',
    "<tool_call> is only talked about",
    'x <tool_call>{"name": "weather", "arguments": {}}</tool_call> and more',
]


@pytest.mark.parametrize("text", TALK)
def test_pieces_tell_the_same_as_the_whole(text: str) -> None:
    whole = read(OWN, text)
    for seed in range(20):
        assert read(OWN, text, seed) == whole


def test_text_without_calls_is_told_to_the_letter() -> None:
    for text in TALK[1:3] + TALK[5:6]:
        assert read(OWN, text) == [Said(text)]


def test_an_answer_that_was_cut_tells_what_there_was() -> None:
    assert read(OWN, TALK[3]) == [CallBegun(0, "weather"), CallArguments(0, '{"city": "cut')]
    assert read(OWN, TALK[4]) == [Said(TALK[4])]


def test_a_second_call_that_was_cut_shows_nothing_of_the_first_ones_end() -> None:
    first = '<tool_call>{"name": "weather", "arguments": {}}'
    told = [CallBegun(0, "weather"), CallArguments(0, "{}")]
    for cut in ("</tool_c", "</tool_call>\n", '</tool_call>\n<tool_call>{"na'):
        assert read(OWN, first + cut) == told
    begun = '<tool_call>{"name": "clo'
    assert read(OWN, f"{first}</tool_call>\n{begun}") == [*told, Said(begun)]


def fits(renderer: Renderer, grammar: str, text: str) -> bool:
    """Whether the grammar allows the whole text; its control tokens are those of calls."""
    end = renderer.end_tokens[0]
    tokens = LLTokenizer(renderer.tokenizer.source, eos_token=end)
    matcher = LLMatcher(tokens, grammar)
    assert not matcher.is_error(), matcher.get_error()
    ids = renderer.tokenizer._whole.encode(text, add_special_tokens=False).ids
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize("template", [HERMES, BARE, MARKED, ""])
def test_a_grammar_allows_exactly_the_calls_of_its_tools(tmp_path: Path, template: str) -> None:
    renderer = renderer_of(tmp_path, template)
    s = renderer.calls
    one = f'weather{s.middle}{{"city": "Rome", "days": 3}}'
    other = f"stop-all{s.middle}{{}}"
    good = s.opening + one + s.closing
    two = s.opening + one + s.between + other + s.closing
    wrong = s.opening + f'weather{s.middle}{{"days": 3}}' + s.closing
    unknown = s.opening + f"launch{s.middle}{{}}" + s.closing

    def allowed(rules: CallRules, *texts: str) -> list[bool]:
        grammar = calls_grammar(rules, s, renderer.tokenizer)
        return [fits(renderer, grammar, text) for text in texts]

    every = (good, two, wrong, unknown, "just text")
    assert allowed(CallRules(TOOLS), *every) == [True, True, False, False, True]
    assert allowed(CallRules(TOOLS, required=True), *every) == [True, True, False, False, False]
    assert allowed(CallRules(TOOLS, parallel=False), *every) == [True, False, False, False, True]
    only = CallRules([TOOLS[1]], required=True, parallel=False)
    assert allowed(only, good, s.opening + other + s.closing) == [False, True]
    schema = checked_schema({"type": "object"}, strict=True, param="x")
    if not s.trigger:
        with pytest.raises(UnsupportedField):
            calls_grammar(CallRules(TOOLS), s, renderer.tokenizer, schema)
        return
    grammar = calls_grammar(CallRules(TOOLS), s, renderer.tokenizer, schema)
    assert [fits(renderer, grammar, t) for t in (good, '{"a":1}', "text")] == [True, True, False]


def test_white_space_of_json_is_free_but_bounded(tmp_path: Path) -> None:
    renderer = renderer_of(tmp_path, "")
    grammar = schema_grammar(SCHEMA, strict=True, param="response_format")
    value = {"city": "Rome", "days": 2}
    for indent in (None, 1, 4):
        assert fits(renderer, grammar, json.dumps(value, indent=indent))
    assert fits(renderer, grammar, json.dumps(value, separators=(",", ":")))
    assert not fits(renderer, grammar, '{"city":' + "\n" * 20 + '"Rome"}')


def test_a_schema_that_cannot_be_held_is_refused_by_its_field() -> None:
    for schema in ({"type": "array", "uniqueItems": True}, {"type": "wizard"}):
        with pytest.raises(InvalidRequest) as refused:
            schema_grammar(schema, strict=True, param="response_format.json_schema.schema")
        assert refused.value.param == "response_format.json_schema.schema"
        assert refused.value.code == "invalid_json_schema"
    assert schema_grammar({"type": "array", "uniqueItems": True}, strict=False, param="x")


def test_families_without_tools_write_our_own_form(tmp_path: Path) -> None:
    renderer = Renderer.load(make_folder(tmp_path, FAMILIES["chatml"]))
    assert renderer.calls == OWN
    assert renderer.call_tokens == ()
