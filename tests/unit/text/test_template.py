"""Templates run in a sandbox, with the names they expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afina.domain.clock import ManualClock
from afina.errors import BaseRefused
from afina.text.template import ChatTemplate, TemplateRefused, TemplateSource, read_template

USER = [{"role": "user", "content": "Hi"}]


def render(source: str, **variables: str) -> str:
    return ChatTemplate(TemplateSource(source, None, variables), ManualClock()).render(USER)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
        ("{{ {'a': '<é>'} | tojson(indent=1) }}", '{\n "a": "<é>"\n}'),
        ("{{ strftime_now('%Y') }}", "2023"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% for n in [1, 2, 3] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "1"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{{ bos_token }}{{ nothing }}{{ tools is none }}", "<s>True"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
    ],
)
def test_templates_find_what_they_expect(source: str, text: str) -> None:
    assert render(source, bos_token="<s>") == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ messages[0].content + none }}",
        "{{ 1 / 0 }}",
        "{{ range(10 ** 9) | list }}",
        "{{ messages[7].content }}",
    ],
)
def test_what_a_template_may_not_or_cannot_do_is_a_refusal(source: str) -> None:
    with pytest.raises(TemplateRefused):
        render(source)


def test_a_refusal_repeats_the_templates_words_and_never_the_users() -> None:
    with pytest.raises(TemplateRefused) as own:
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateRefused) as users:
        render("{{ raise_exception(messages[0].content) }}")
    assert "roles must alternate" in own.value.message
    assert "Hi" not in users.value.message


def test_a_key_named_like_a_method_of_mappings_hides_no_method() -> None:
    message = {"role": "user", "content": "a", "items": "b", "__class__": "c"}
    source = (
        "{% set m = messages[0] %}{{ m.role }}{% for k, v in m.items() %}{{ v }}{% endfor %}"
        "|{{ m.items is string }}|{{ m.nothing is defined }}|{{ m.__class__ is string }}"
    )
    template = ChatTemplate(TemplateSource(source, None, {}), ManualClock())
    assert template.render([message]) == "useruserabc|False|False|False"


def test_a_broken_template_is_refused_at_once() -> None:
    with pytest.raises(BaseRefused, match="not valid Jinja"):
        render("{% if %}")


def test_the_file_wins_over_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "old", "bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    )
    assert read_template(tmp_path).default == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    source = read_template(tmp_path)
    assert (source.default, source.variables) == ("new", {"bos_token": "<s>", "eos_token": "</s>"})


def test_a_named_template_for_tools_is_found(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = ChatTemplate(read_template(tmp_path))
    assert template.knows_tools
    assert (template.render(USER), template.render(USER, [{"name": "f"}])) == ("a", "b")


def test_a_folder_without_a_template_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BaseRefused) as caught:
        read_template(tmp_path)
    assert "chat_template.jinja" in caught.value.one_line()
