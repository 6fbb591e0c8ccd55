"""What rows say together: each rule on a file that breaks it and on one that does not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from afina.data.content.languages import _KNOWN, UNKNOWN, languages_of
from afina.data.content.shingles import bands_of, plain, similarity
from afina.data.content.survey import ContentReport, check_content
from afina.data.rules.content_rules import CONTENT_RULES

pytestmark = pytest.mark.long

WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "letter",
    "morning",
    "paper",
    "music",
    "winter",
    "bridge",
    "market",
    "engine",
    "forest",
    "silver",
    "button",
    "candle",
    "ladder",
    "orange",
    "pocket",
    "travel",
    "yellow",
    "circle",
    "doctor",
    "family",
    "summer",
]
SPANISH = "Para devolver el pedido tiene que imprimir la etiqueta y llevar el paquete a correos."


def sentence(number: int, salt: str = "", words: int = 12) -> str:
    return " ".join(random.Random(f"{salt}{number}").choices(WORDS, k=words))


def row(asked: str, answer: str, system: str | None = None) -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return json.dumps({"messages": messages}, ensure_ascii=False)


def plain_rows(count: int = 40) -> list[str]:
    """Rows that no rule minds."""
    return [row(sentence(n, "q"), sentence(n, "a", 8 + n % 9)) for n in range(count)]


def labels(counts: dict[str, int]) -> list[str]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [row(sentence(n, "q"), name) for n, name in enumerate(names)]


def check(path: Path, rows: list[str], validation: list[str] | None = None) -> ContentReport:
    (path / "t.jsonl").write_text("\n".join(rows), encoding="utf-8")
    if validation is None:
        return check_content(path / "t.jsonl")
    (path / "v.jsonl").write_text("\n".join(validation), encoding="utf-8")
    return check_content(path / "t.jsonl", path / "v.jsonl")


GOOD = plain_rows()
NEAR = (
    GOOD[3].replace("river", "rivers", 1) if "river" in GOOD[3] else GOOD[3].replace(" ", "  ", 1)
)
LONG = sentence(99, "long", 60)
BAD: dict[str, list[str]] = {
    "near-duplicate": [*GOOD, row(LONG, "one"), row(f"{LONG}!", "one")],
    "contradiction": [*GOOD, row("Is it open?", sentence(1, "x")), row("Is it open?", sentence(2, "y"))],
    "other-language": [*GOOD, row(sentence(70, "q"), SPANISH)],
    "answered-in-other-language": [
        *(row(f"How can I {sentence(n, 'q', 4)} with the order?", f"You should {sentence(n, 'a', 6)} when it is there, and that is all.") for n in range(40)),
        row(SPANISH, f"You should {sentence(70, 'a', 6)} when it is there, and that is all."),
    ],
    "secret-in-row": [*GOOD, row("key?", "Use AKIAIOSFODNN7EXAMPLE.")],
    "personal-data": [*GOOD, row("mail?", "Ask ana@example.com or 12345678Z.")],
    "same-opening": [row(sentence(n, "q"), f"Thank you for asking, {sentence(n, 'a', 8 + n % 7)}") for n in range(40)],
    "same-length": [row(sentence(n, "q"), sentence(n, "a", 20)[:64]) for n in range(40)],
    "unbalanced-classes": labels({"yes": 97, "no": 3}),
    "only-one-answer": labels({"yes": 30}),
}  # fmt: skip


@pytest.mark.parametrize("code", BAD)
def test_a_file_that_breaks_a_rule_is_told_so(code: str, tmp_path: Path) -> None:
    report = check(tmp_path, BAD[code])
    assert code in report.counts, report.counts
    finding = next(f for f in report.findings if f.rule == code)
    rows = len(BAD[code])
    if code not in ("same-opening", "same-length", "unbalanced-classes", "only-one-answer"):
        assert finding.line == rows
        assert report.counts[code] == 1
    assert finding.file == "t.jsonl"
    assert report.rows == rows


def test_each_content_rule_has_an_example() -> None:
    assert {rule.code for rule in CONTENT_RULES} == {*BAD, "leaked-row"}


@pytest.mark.parametrize(
    "rows",
    [
        GOOD,
        labels({"yes": 40, "no": 35, "maybe": 30}),
        [row(f"What is {n} + {n + 7}?", str(2 * n + 7), "You are a calculator. " * 9) for n in range(60)],
        [],
        ["{", "[1]", '{"messages": 3}', '{"messages": [3]}', '{"a": 1}'],
    ],
    ids=["prose", "classes", "sums", "empty", "broken"],
)  # fmt: skip
def test_good_rows_raise_nothing(rows: list[str], tmp_path: Path) -> None:
    assert dict(check(tmp_path, rows).counts) == {}


def test_rows_of_the_training_file_in_the_validation_file_are_leaks(tmp_path: Path) -> None:
    near = row(f"{LONG}?", "one")
    report = check(
        tmp_path, [*GOOD, row(LONG, "one")], [GOOD[5], sentence(1), near, plain_rows(60)[50]]
    )
    found = [(f.rule, f.file, f.line, f.message) for f in report.findings]
    assert [(rule, file, line) for rule, file, line, _ in found] == [
        ("leaked-row", "v.jsonl", 1),
        ("leaked-row", "v.jsonl", 3),
    ]
    assert "exactly what line 6" in found[0][3]
    assert "nearly what line 41" in found[1][3]
    exact, nearly = (f.remedy for f in report.findings)
    assert "`afina data split` keeps copies together" in exact
    assert "not what is nearly the same" in nearly


def test_copies_byte_for_byte_are_left_to_their_own_rule(tmp_path: Path) -> None:
    assert dict(check(tmp_path, [*GOOD, GOOD[0]]).counts) == {}


def refused(asked: str, said: str, *, in_parts: bool) -> str:
    """A row whose answer is a refusal, beside the content or as a part of it."""
    parts = {"content": [{"type": "refusal", "refusal": said}]}
    answer = parts if in_parts else {"refusal": said}
    return json.dumps(
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", **answer}]}
    )


def called(asked: str, arguments: str) -> str:
    """A row whose answer is a call in the older way."""
    call = {"role": "assistant", "function_call": {"name": "weather", "arguments": arguments}}
    return json.dumps({"messages": [{"role": "user", "content": asked}, call]})


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_refusal_is_an_answer_among_others(in_parts: bool, tmp_path: Path) -> None:
    asked = sentence(70)
    rows = [refused(asked, said, in_parts=in_parts) for said in ("Never.", "I may not say that.")]
    found = check(tmp_path, [*plain_rows(), *rows])
    assert [f.rule for f in found.findings] == ["contradiction"]


def test_calls_in_the_older_way_are_answers_that_differ(tmp_path: Path) -> None:
    rows = [called(sentence(70), json.dumps({"city": city})) for city in ("Paris", "Lisbon")]
    found = check(tmp_path, [*plain_rows(), *rows])
    assert "contradiction" in [f.rule for f in found.findings]


def test_findings_hold_no_text_of_rows(tmp_path: Path) -> None:
    report = check(
        tmp_path, BAD["secret-in-row"] + BAD["personal-data"][-1:] + [row(LONG, SPANISH)]
    )
    said = " ".join(f.one_line() for f in report.findings)
    for text in ("AKIA", "ana@", "12345678Z", "pedido", LONG[:12]):
        assert text not in said


@pytest.mark.parametrize("kind", ["pair", "preference", "rft"])
def test_rows_of_every_kind_are_compared(kind: str, tmp_path: Path) -> None:
    def made(asked: str, answer: str) -> dict[str, Any]:
        user, said = {"role": "user", "content": asked}, {"role": "assistant", "content": answer}
        kinds: dict[str, dict[str, Any]] = {
            "pair": {"prompt": asked, "completion": answer},
            "preference": {
                "input": {"messages": [user]},
                "preferred_output": [said],
                "non_preferred_output": [{**said, "content": "no"}],
            },
            "rft": {"messages": [user], "reference": answer},
        }
        return kinds[kind]

    rows = [json.dumps(made(sentence(n, "q"), sentence(n, "a", 9 + n % 7))) for n in range(30)]
    rows += [json.dumps(made(sentence(3, "q"), "quite another one"))]
    assert check(tmp_path, rows).counts["contradiction"] == 1


def test_texts_that_share_four_fifths_meet_in_a_band() -> None:
    met = looked_at = 0
    for number in range(300):
        one = sentence(number, "m", 50)
        other = one.replace(one.split()[number % 50], "zzz", 1)
        if similarity(plain(one), plain(other)) >= 0.8:
            looked_at += 1
            first, second = bands_of([plain(one), plain(other)])
            met += bool((first == second).any())
    assert looked_at > 200
    assert met >= 0.97 * looked_at


def test_bands_of_a_text_do_not_depend_on_its_neighbours() -> None:
    texts = [plain(sentence(n, "b", n)) for n in range(30)]
    together = bands_of(texts)
    assert all((bands_of([text])[0] == together[n]).all() for n, text in enumerate(texts))


def test_languages_are_told_as_the_package_itself_tells_them() -> None:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_KNOWN)
    texts = [
        SPANISH,
        LONG,
        SPANISH.upper(),
        "Ça va très bien, et il fait beau aujourd'hui à Paris.",
    ]
    texts += [
        "O pedido chega amanhã de manhã, se não houver greve.",
        "Der Hund läuft über die Straße.",
    ]
    texts += [
        "今日はとても天気がいいので、散歩に行きましょう。今日はとても天気がいい",
        "no",
        "12345 " * 20,
    ]
    for text, told in zip(texts, languages_of(texts), strict=True):
        code, share = identifier.classify(text[:160])
        assert told in (UNKNOWN, code)
        assert (told == UNKNOWN) == (share < 0.9 or sum(map(str.isalpha, text[:160])) < 24)
    assert languages_of(texts)[0] == "es"
