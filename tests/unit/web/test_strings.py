"""Texts: complete in three languages, all of them known to the pages, none written beside them."""

from __future__ import annotations

import re
from pathlib import Path

from afina import web
from afina.data.rules import registry
from afina.language.strings import LANGUAGES, Texts, chosen_language, table

WEB = Path(web.__file__).parent
TEMPLATES = sorted((WEB / "templates").rglob("*.html"))
SCRIPTS = sorted((WEB / "static").glob("*.js"))
NAMED = re.compile(r"""\bt(?:exts)?\(\s*f?["']([a-z_]+\.[a-z_0-9]+)["']""")
PREFIXED = re.compile(r"""\bt\(\s*["']([a-z_]+\.[a-z_0-9]*)["']\s*~""")
SAME_EVERYWHERE = re.compile(
    r"^(unit\..*|ui\.tokens|ui\.no|jobs\.title|models\.base|card\.of_base|table\.prompts|play\.(top_p|speed|counted)|job\.per_second"
    r"|settings\.webhooks|event\.(words|warned_file)|usage\.total|home\.requests|jobs\.filter_all)$"
)
NO_WORDS = {
    "adapter",
    "gguf",
    "llama",
    "cpp",
    "afina",
    "curl",
    "Python",
    "JSON",
    "M",
    "FOLDER",
    "kWh",
}


def test_every_text_is_in_every_language_and_translated() -> None:
    for key, forms in table().items():
        assert len(forms) == len(LANGUAGES)
        if SAME_EVERYWHERE.match(key):
            continue
        assert forms[0] != forms[1], f"{key} is not translated into Spanish"
        assert forms[0] != forms[2], f"{key} is not translated into Portuguese"


def test_translations_fill_in_the_same_names_and_have_the_same_number_of_forms() -> None:
    for key, forms in table().items():
        english, *others = (set(re.findall(r"\{(\w+)\}", form)) for form in forms)
        for names in others:
            # A sentence of an event may leave out what only English words would fill.
            assert names <= english if key.startswith("event.") else names == english, key
        assert len({form.count("|") for form in forms}) == 1, key


def test_every_text_that_a_page_asks_for_exists() -> None:
    assert len(TEMPLATES) > 20
    for path in [*TEMPLATES, *sorted((WEB / "pages").glob("*.py"))]:
        source = path.read_text()
        prefixes = set(PREFIXED.findall(source))
        for key in set(NAMED.findall(source)) - prefixes:
            assert key in table(), f"{path.name} asks for {key}"
        for prefix in prefixes:
            assert any(key.startswith(prefix) for key in table()), f"{path.name}: {prefix}"


def test_no_template_holds_a_word_of_its_own() -> None:
    for path in TEMPLATES:
        source = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text(), flags=re.S)
        source = re.sub(r"<pre.*?</pre>|<svg.*?</svg>|<[^>]*>|&\w+;", " ", source, flags=re.S)
        words = set(re.findall(r"[A-Za-zÀ-ÿ]{2,}", source)) - NO_WORDS
        if path.name == "icons.html":
            continue
        assert not words, f"{path.name} holds {sorted(words)}"


def test_every_rule_has_its_sentence_and_every_sentence_its_rule() -> None:
    rules = {rule.code.replace("-", "_") for _, rules in registry.TITLES for rule in rules}
    assert set(Texts("en").section("rule")) == rules


def test_the_form_follows_the_number() -> None:
    assert Texts("en")("ui.rows", n=1) == "1 row"
    assert Texts("es")("ui.rows", n=2) == "2 filas"


def test_the_reader_s_choice_comes_before_the_browser_s() -> None:
    assert chosen_language("pt", "es") == "pt"
    assert chosen_language(None, "fr-FR, pt-BR;q=0.8") == "pt"
    assert chosen_language("xx", None) == "en"
