"""What is written from a frame is what the template writes, and where it could be otherwise the
template writes it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES

from afina.domain.clock import ManualClock
from afina.errors import InvalidRequest
from afina.text.template import ChatTemplate, TemplateSource

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
QWEN3 = (
    "{%- set ns = namespace(last=messages|length - 1, found=false) %}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n' }}{%- endif %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if not ns.found and message.role == 'user' and message.content is string and not "
    "(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}"
    "{%- set ns.found = true %}{%- set ns.last = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}"
    "{%- if message.content is string %}{%- set content = message.content %}"
    "{%- else %}{%- set content = '' %}{%- endif %}"
    "{%- if message.role == 'assistant' %}{%- set thought = '' %}"
    "{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last %}{{- '<a>' + thought + '|' + content.lstrip('\n') }}"
    "{%- else %}{{- '<a>' + content }}{%- endif %}"
    "{%- else %}{{- '<' + message.role + '>' + content }}{%- endif %}{%- endfor %}"
)
NEIGHBOURS = (
    "{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<' + message.role + '>' + message.content + '</>' }}"
    "{%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}{{- '\n' }}{%- endif %}"
    "{%- elif loop.index0 == 0 or (messages[loop.index0 - 1].role != 'tool') %}"
    "{%- if message.content is mapping or message.content is not string %}"
    "{{- message.content | tojson }}{%- else %}{{- message.content | default('') | trim }}"
    "{%- endif %}{%- endif %}{%- endfor %}"
)
ODD = {
    "a macro's text": (
        "{% macro say(x) %}{{ x }}{% endmacro %}"
        "{% for m in messages %}{{ say(m.content) | trim }};{% endfor %}"
    ),
    "a set block": (
        "{% for m in messages %}{% set x %}{{ m.content }}{% endset %}{{ x | trim }};{% endfor %}"
    ),
    "joined, then asked": (
        "{% for m in messages %}{% if 'a' in ('' ~ m.content) %}yes{% endif %}{{ m.content }};"
        "{% endfor %}"
    ),
    "added, then trimmed": "{% for m in messages %}{{ (' ' + m.content) | trim }};{% endfor %}",
    "upper case": "{% for m in messages %}{{ m.content | upper }};{% endfor %}",
    "a length": (
        "{% for m in messages %}{% if m.content | length > 3 %}{{ m.content }}{% endif %};"
        "{% endfor %}"
    ),
    "a letter": "{% for m in messages %}{{ m.content[0] }}{{ m.content[1:] }};{% endfor %}",
    "json": "{% for m in messages %}{{ m.content | tojson }}{{ m | tojson }};{% endfor %}",
    "a list written": "{% for m in messages %}{{ [m.content] }}{% endfor %}",
    "a list joined": "{% for m in messages %}{{ [m.content, 'x'] | join }}{% endfor %}",
    "joined by a method": "{% for m in messages %}{{ ''.join([m.content]) | trim }}{% endfor %}",
    "formatted": "{% for m in messages %}{{ ('%s' % m.content) | trim }}{% endfor %}",
    "formatted from a list": "{% for m in messages %}{{ ('%s' % (m.content,))|trim }}{% endfor %}",
    "replaced": "{% for m in messages %}{{ 'a-b' | replace('-', m.content) | trim }}{% endfor %}",
    "looked for in a word": (
        "{% for m in messages %}{% if m.content in 'abc' %}!{% endif %}{{ m.content }}{% endfor %}"
    ),
    "one of a list": (
        "{% for m in messages %}{% if m.content in ['a', ''] %}!{% endif %}{{ m.content }};"
        "{% endfor %}"
    ),
    "a comparison": (
        "{% for m in messages %}{% if m.content == 'a' %}!{% elif m.content < 'b' %}?{% endif %}"
        "{{ m.content }};{% endfor %}"
    ),
    "the same as the first": (
        "{% for m in messages %}{% if m.content == messages[0].content %}!{% endif %}"
        "{{ m.content }};{% endfor %}"
    ),
    "messages compared": (
        "{% for m in messages %}{% if m != messages[0] %}!{% endif %}{{ m.content }};{% endfor %}"
    ),
    "a key": "{% for m in messages %}{{ {'a': 'x'}[m.content] }}{{ m.content }};{% endfor %}",
    "an attribute": "{% for m in messages %}{{ m[m.content] }};{% endfor %}",
    "a sum of a text as a place": (
        "{% for m in messages %}{{ messages[m.content + 1] }}{{ messages[m.content + 'x'] }}"
        "{{ m.content }}{% endfor %}"
    ),
    "iterable": "{% for m in messages %}{% if m.content is iterable %}i{% endif %}{% endfor %}",
    "the default of a text": (
        "{% for m in messages %}{{ m.content | default(messages[0].content, true) }};{% endfor %}"
    ),
    "letter by letter": "{% for m in messages %}{% for c in m.content %}{{c}}.{% endfor %}{% endfor %}",
    "characters from a text": "{% for m in messages %}{{ 'aXa' | trim(m.content) }};{% endfor %}",
    "a sequence": "{% for m in messages %}{% if m.content is sequence %}s{% endif %}{% endfor %}",
    "a loop that changed": (
        "{% for m in messages %}{% if loop.changed(m.content) %}{{ m.content }}{% endif %};"
        "{% endfor %}"
    ),
    "its own attributes": "{% for m in messages %}{{ m.content.origin }}{{ m.content }};{% endfor %}",
    "an or": "{% for m in messages %}{{ m.content or 'nothing' }};{% endfor %}",
    "trimmed and asked": (
        "{% for m in messages %}{% set c = m.content | trim %}{% if c %}{{ c }}{% else %}-"
        "{% endif %}{% if c.startswith('a') %}!{% endif %};{% endfor %}"
    ),
}
TEMPLATES = {name: family.template for name, family in FAMILIES.items()} | {
    "qwen3": QWEN3,
    "neighbours": NEIGHBOURS,
}
TEMPLATES |= ODD
ADDRESS = re.compile("0x[0-9a-f]+")
"""Of a method that a template writes."""
ASKING = {"trimmed and asked", "an or", "messages compared", "one of a list"}
"""Those that only ask: an ordinary text's answers are assumed."""
ROLES = st.sampled_from(("user", "assistant"))
TEXTS = st.sampled_from(
    ("", " ", "a", "abc", "b a", " a \n", "\n\nx", "<tool>t</tool>", "<think>h</think>\n\nx",
     "</think>", "\ufdd20\ufdd2", "0", "{{ messages }}", "origin", "content", "role", "é\u3000")
) | st.text(max_size=5)  # fmt: skip


def written(template: ChatTemplate, messages: list[dict[str, Any]], *, frames: bool) -> str:
    """The text, or why there is none."""
    kept = template._frames
    if not frames:
        template._frames = None
    try:
        return ADDRESS.sub("0x", template.render(messages))
    except InvalidRequest as error:
        return f"refused: {error.message}"
    finally:
        template._frames = kept


COMPILED = {
    name: ChatTemplate(TemplateSource(source, None, VARIABLES))
    for name, source in TEMPLATES.items()
}


@given(st.lists(st.tuples(ROLES, TEXTS), max_size=4), st.none() | TEXTS)
def test_a_frame_writes_what_the_template_writes(
    said: list[tuple[str, str]], system: str | None
) -> None:
    messages = [{"role": role, "content": text} for role, text in said]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    for name, template in COMPILED.items():
        assert written(template, messages, frames=True) == written(
            template, messages, frames=False
        ), name


def is_joined(name: str, *contents: str) -> bool:
    """Whether a chat of these texts is written from a frame."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)
    ]
    frames = COMPILED[name]._frames
    return frames is not None and frames.write(messages) is not None


@pytest.mark.parametrize(
    "name", [*FAMILIES, "qwen3", "neighbours", *sorted(ASKING - {"messages compared"})]
)
def test_ordinary_chats_of_ordinary_templates_are_written_from_frames(name: str) -> None:
    assert is_joined(name, "What art thou?", "A model.", "Truly?", " Yes. ")


def test_a_text_that_the_template_treats_apart_is_written_by_the_template() -> None:
    assert not is_joined("qwen3", "Why?", "<think>hm</think>So.")
    assert is_joined("qwen3", "Why?", "So.")
    assert not is_joined("trimmed and asked", "  ")


@pytest.mark.parametrize("name", sorted(ODD.keys() - ASKING))
def test_a_template_that_does_more_than_write_always_runs(name: str) -> None:
    assert not is_joined(name, "What?", "That.")


def test_a_text_is_never_the_form_of_a_date() -> None:
    for form, joined in (("m.content", False), ("'%Y'", True)):
        source = (
            "{% for m in messages %}{{ strftime_now(" + form + ") }}{{ m.content }}{% endfor %}"
        )
        template = ChatTemplate(TemplateSource(source, None, {}), ManualClock(0.0))
        assert template._frames is not None
        found = template._frames.write([{"role": "user", "content": "%d"}])
        assert (found is not None) == joined
        assert found in (None, "1970%d")


def test_a_template_that_asks_what_day_it_is_always_runs() -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ strftime_now('%H') }}"
    assert ChatTemplate(TemplateSource(source, None, {}))._frames is None
