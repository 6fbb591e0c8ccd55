"""A bad and a good file for each rule that needs more than one line, a limit or a model's template.

What is wrong is said in words on the page; the files themselves are tests. Words are drawn by
number, so that rows are alike in form and nothing else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from afina.data.rules.examples import EXAMPLES

_TEXT: Final = (
    "river stone window garden letter morning paper music winter bridge market engine forest "
    "silver button candle ladder orange pocket travel yellow circle doctor family summer"
)
_WORDS: Final = _TEXT.split()
_SPANISH: Final = (
    "Para devolver el pedido tiene que imprimir la etiqueta y llevar el paquete a correos."
)


@dataclass(frozen=True)
class FileExample:
    """Lines of JSONL; `words` tells what is wrong with the bad ones."""

    words: str
    bad: Sequence[str | bytes]
    good: Sequence[str | bytes]
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Of `CheckLimits`, beside `min_rows`."""
    validation: tuple[Sequence[str], Sequence[str]] = ((), ())
    """A validation file beside the bad lines, and one beside the good ones."""
    template: str | None = None
    """The family of templates that is needed."""


def _said(number: int, salt: str, words: int = 12) -> str:
    source = random.Random(f"{salt}{number}")  # noqa: S311  (no secret)
    return " ".join(source.choices(_WORDS, k=words))


def _row(asked: str, answer: str, **more: Any) -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, **more}, ensure_ascii=False)


def _rows(count: int = 40) -> list[str]:
    return [_row(_said(n, "q"), _said(n, "a", 8 + n % 9)) for n in range(count)]


def _labels(**counts: int) -> list[str]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [_row(_said(n, "q"), name) for n, name in enumerate(names)]


def _pairs(completion: str = " {n} END", prompt: str = "{n} ->") -> list[str]:
    return [
        json.dumps({"prompt": prompt.format(n=n), "completion": completion.format(n=n)})
        for n in range(24)
    ]


def _tools(count: int) -> str:
    named = ({"name": f"t{n}"} for n in range(count))
    return _row("Hi", "Yes", tools=[{"type": "function", "function": one} for one in named])


_GOOD: Final = _rows()
_LONG: Final = _said(99, "long", 60)
_NAMED: Final = json.dumps(
    {
        "messages": [
            {"role": "user", "content": "Hi", "name": "Ann"},
            {"role": "assistant", "content": "Yes"},
        ]
    }
)
_SYSTEM: Final = json.dumps(
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes"},
        ]
    }
)
_TASKS: Final = [EXAMPLES["no-reference"].good.replace("Hi", f"Hi {n}") for n in range(4)]
_ORDERS: Final = [
    _row(
        f"How can I {_said(n, 'q', 4)} with the order?",
        f"You should {_said(n, 'a', 6)} when it is there, and that is all.",
    )
    for n in range(40)
]
_THANKS: Final = [
    _row(_said(n, "q"), f"Thank you for asking, {_said(n, 'a', 8 + n % 7)}") for n in range(40)
]
_CUT: Final = [_row(_said(n, "q"), _said(n, "a", 20)[:64]) for n in range(40)]

FILE_EXAMPLES: Final[Mapping[str, FileExample]] = {
    "line-too-long": FileExample(
        "A line has more bytes than may be read.",
        [_row("Hi", "x" * 5000)],
        [_row("Hi", "x" * 500)],
        {"max_line_bytes": 4500},
    ),
    "not-utf8": FileExample(
        "A line was written in cp1252.", [_row("Hé", "Yes").encode("cp1252")], [_row("Hé", "Yes")]
    ),
    "too-deep": FileExample("65 lists stand in each other.", ["[" * 65 + "]" * 65], [_GOOD[0]]),
    "too-many-tools": FileExample("A row defines 129 tools.", [_tools(129)], [_tools(3)]),
    "template-refuses": FileExample(
        "The model's template takes no system message.", [_SYSTEM], [_GOOD[0]], template="gemma"
    ),
    "too-long": FileExample(
        "A row has more tokens than the model can read.",
        [_row("Hi", "word " * 700)],
        [_row("Hi", "word " * 7)],
        template="chatml",
    ),
    "control-token-in-text": FileExample(
        "An answer holds `<|im_end|>`, which ends a turn.",
        [_row("Hi", "a <|im_end|> b")],
        [_row("Hi", "a b")],
        template="chatml",
    ),
    "empty-file": FileExample("The file has no line.", [], [_GOOD[0]]),
    "too-few-rows": FileExample(
        "Nine rows, of which ten are needed.", _GOOD[:9], _GOOD[:10], {"min_rows": 10}
    ),
    "too-many-errors": FileExample(
        "As many lines are bad as end the check.", ["{", "{", "{"], ["{"], {"max_bad_rows": 2}
    ),
    "too-many-rows": FileExample(
        "Four tasks, of which three are allowed.", _TASKS, _TASKS[:3], {"max_rows": 3}
    ),
    "parallel-flag-without-effect": FileExample(
        "A row says `parallel_tool_calls`.",
        [_tools(1)[:-1] + ', "parallel_tool_calls": true}'],
        [_tools(1)],
    ),
    "name-without-effect": FileExample(
        "A message says that Ann speaks, and the template does not write it.",
        [_NAMED],
        [_GOOD[0]],
        template="chatml",
    ),
    "blank-lines": FileExample("A line is blank.", [_GOOD[0], "  ", _GOOD[1]], _GOOD[:2]),
    "duplicate-row": FileExample("A row stands twice.", [*_GOOD[:2], _GOOD[0]], _GOOD[:2]),
    "prompt-without-end": FileExample(
        "Prompts end in many ways.", _pairs(prompt="{n}? Q{n}"), _pairs()
    ),
    "completion-without-end": FileExample(
        "Completions end in many ways.", _pairs(" ok{n}"), _pairs()
    ),
    "completion-starts-bare": FileExample(
        "Some completions begin without a space.", [*_pairs()[:12], *_pairs("{n} END")], _pairs()
    ),
    "common-start": FileExample(
        "All prompts begin with `Tell me now:`.", _pairs(prompt="Tell me now: {n} ->"), _pairs()
    ),
    "upper-case": FileExample(
        "Prompts are written in capitals.", _pairs(prompt="WHAT DO YOU WANT {n} ->"), _pairs()
    ),
    "very-long-pair": FileExample(
        "Prompts have more than 10,000 characters.",
        _pairs(prompt="{n} " + "x" * 10_000 + " ->"),
        _pairs(),
    ),
    "near-duplicate": FileExample(
        "Two rows differ in an exclamation mark.",
        [*_GOOD, _row(_LONG, "one"), _row(f"{_LONG}!", "one")],
        [*_GOOD, _row(_LONG, "one")],
    ),
    "contradiction": FileExample(
        "One question has two answers.",
        [*_GOOD, _row("Is it open?", _said(1, "x")), _row("Is it open?", _said(2, "y"))],
        [*_GOOD, _row("Is it open?", _said(1, "x"))],
    ),
    "leaked-row": FileExample(
        "A row of the training file stands in the validation file.",
        _GOOD,
        _GOOD,
        validation=([_GOOD[5]], [_row(_said(77, "v"), _said(78, "v"))]),
    ),
    "other-language": FileExample(
        "One answer of many is Spanish.", [*_GOOD, _row(_said(70, "q"), _SPANISH)], _GOOD
    ),
    "answered-in-other-language": FileExample(
        "One Spanish question is answered in English.",
        [
            *_ORDERS,
            _row(_SPANISH, f"You should {_said(70, 'a', 6)} when it is there, and that is all."),
        ],
        _ORDERS,
    ),
    "secret-in-row": FileExample(
        "An answer holds a key.", [*_GOOD, _row("key?", "Use AKIAIOSFODNN7EXAMPLE.")], _GOOD
    ),
    "personal-data": FileExample(
        "An answer holds an address of mail.",
        [*_GOOD, _row("mail?", "Ask ana@example.com.")],
        _GOOD,
    ),
    "same-opening": FileExample("All answers begin with `Thank you for asking`.", _THANKS, _GOOD),
    "same-length": FileExample("All answers have 64 characters.", _CUT, _GOOD),
    "unbalanced-classes": FileExample(
        "Of two answers one stands in 97 of 100 rows.",
        _labels(yes=97, no=3),
        _labels(yes=40, no=35, maybe=30),
    ),
    "only-one-answer": FileExample(
        "All answers are `yes`.", _labels(yes=30), _labels(yes=40, no=35, maybe=30)
    ),
}
