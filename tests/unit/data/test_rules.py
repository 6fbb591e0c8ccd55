"""Every rule fires on the row that breaks it, and on no good one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.content.survey import check_content
from afina.data.kinds import KINDS_OF_METHOD, RowKind
from afina.data.rules import ALL_RULES
from afina.data.rules.content_rules import CONTENT_RULES
from afina.data.rules.examples import EXAMPLES
from afina.data.rules.file_examples import FILE_EXAMPLES
from afina.data.rules.kind_rules import (
    INPUT_ENDS,
    PAIR_FILE_RULES,
    PAIR_ROW_RULES,
    PREFERENCE_ROW_RULES,
    TASK_ROW_RULES,
)
from afina.data.rules.pages import catalogue
from afina.data.rules.rendered import nothing_rendered
from afina.data.rules.rule import RenderedFacts
from afina.domain.findings import Severity
from afina.text.renderer import Renderer

ROOT = Path(__file__).parents[3]
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Yes"}
CALL: dict[str, Any] = {
    "id": "c1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": 1}'},
}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": ""}


def row(*messages: Any, **more: Any) -> str:
    return json.dumps({"messages": list(messages), **more})


def said(**answer: Any) -> str:
    return row(USER, {**ANSWER, **answer})


def called(**change: Any) -> str:
    return row(USER, {**CALLING, "tool_calls": [{**CALL, **change}]}, **TOOLS)


GOOD: list[str | bytes] = [
    row(USER, ANSWER),
    row({"role": "system", "content": "s"}, USER, ANSWER, USER, ANSWER),
    row({"role": "developer", "content": "s"}, USER, ANSWER),
    row(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}),
    row(USER, CALLING, RESULT, ANSWER, tools=[{"type": "function", "function": {"name": "f"}}]),
    row(USER, CALLING, **TOOLS),
    row(
        USER,
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        functions=[{"name": "f"}],
    ),
    row(USER, ANSWER, functions=[{"name": "f", "parameters": {}}]),
    row({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER),
    row(USER, {"role": "assistant", "refusal": "No."}),
    row(ANSWER, ANSWER),
    "\ufeff" + row(USER, ANSWER),
    row(USER, ANSWER).replace("Yes", '\\ud83d\\ude00 \\u0022: \\" :'),
    '{"messages" : [ {"role" :"user","content" : "a\u2028b"} , {"role":"assistant","content":"x"}]}',
    row(
        USER,
        ANSWER,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"n": 10**40}}}],
    ),
]
BAD: list[tuple[str, str | bytes]] = [
    ("line-too-long", row(USER, {"role": "assistant", "content": "x" * 5000})),
    ("not-utf8", row(USER, ANSWER).encode().replace(b"Yes", b"\xe9\xe8")),
    ("too-deep", '{"messages": ' + "[" * 500 + "]" * 500 + "}"),
    ("too-deep", "[" * 4000),
    ("not-json", '{"messages": [}'),
    ("not-json", "{'messages': []}"),
    ("not-json", row(USER, ANSWER) + row(USER, ANSWER)),
    ("not-json", '{"messages": "a\tb"}'),
    ("not-json", "\u00a0"),
    ("not-finite", row(USER, ANSWER).replace('"Yes"', "NaN")),
    ("not-finite", '{"messages": [-Infinity]}'),
    ("not-finite", '{"messages": [1e999]}'),
    ("not-finite", '{"messages": [' + "9" * 4400 + "]}"),
    ("duplicate-key", row(USER, ANSWER).replace('"Yes"', '"Yes", "content": "No"')),
    ("duplicate-key", '{"messages": [], "messages" : []}'),
    ("duplicate-key", '{"a": 1, "a": "\\u0022\\u0022"}'),
    ("lone-surrogate", row(USER, ANSWER).replace("Yes", "\\ud800")),
    ("lone-surrogate", row(USER, ANSWER).replace("Yes", "\\udc00\\ud800")),
    ("not-an-object", "[1]"),
    ("not-an-object", "null"),
    ("not-an-object", "3"),
    ("missing-messages", '{"prompt": "a", "completion": "b"}'),
    ("unknown-row-key", row(USER, ANSWER, weight=1)),
    ("messages-not-a-list", '{"messages": {"role": "user"}}'),
    ("no-messages", '{"messages": []}'),
    ("message-not-an-object", row("Hi", ANSWER)),
    ("no-assistant-message", row(USER, USER)),
    ("last-not-assistant", row(USER, ANSWER, USER)),
    ("nothing-learned", row(USER, {**ANSWER, "weight": 0})),
    ("bad-parallel-flag", row(USER, ANSWER, parallel_tool_calls="yes")),
    ("bad-tools", row(USER, ANSWER, tools=[])),
    ("bad-tools", row(USER, ANSWER, tools=[{"type": "function", "function": {}}])),
    ("bad-tools", row(USER, ANSWER, tools=[{"name": "f"}])),
    ("bad-tools", row(USER, ANSWER, functions=[{"name": "f", "parameters": []}])),
    ("unmatched-tool-result", row(USER, RESULT, ANSWER)),
    ("undefined-tool", row(USER, CALLING)),
    ("undefined-tool", row(USER, CALLING, tools=[{"type": "function", "function": {"name": "g"}}])),
    (
        "too-many-tools",
        row(USER, ANSWER, functions=[{"name": f"f{n}"} for n in range(129)]),
    ),
    ("parallel-flag-without-effect", row(USER, ANSWER, parallel_tool_calls=True)),
    ("name-without-effect", row({**USER, "name": "Ann"}, ANSWER)),
    ("unanswered-tool-call", row(USER, CALLING, USER, ANSWER, **TOOLS)),
    ("missing-role", row({"content": "Hi"}, ANSWER)),
    ("unknown-role", row({"role": "human", "content": "Hi"}, ANSWER)),
    ("unknown-role", row({"role": ["user"], "content": "Hi"}, ANSWER)),
    ("unknown-message-key", row({**USER, "weight": 1}, ANSWER)),
    ("unknown-message-key", said(audio={"id": "x"})),
    ("missing-content", row({"role": "user"}, ANSWER)),
    ("missing-content", said(content=None)),
    ("wrong-content-type", said(content=3)),
    ("wrong-content-type", said(content={"text": "x"})),
    ("empty-content", said(content="")),
    ("empty-content", said(content=" \n\t")),
    ("empty-content", said(content=[])),
    (
        "unsupported-part",
        row({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER),
    ),
    ("bad-part", row({"role": "user", "content": ["Hi", {"type": "text", "text": "x"}]}, ANSWER)),
    (
        "bad-part",
        row({"role": "user", "content": [{"type": "text"}, {"type": "text", "text": "x"}]}, ANSWER),
    ),
    ("bad-weight", said(weight=0.5)),
    ("bad-weight", said(weight=True)),
    ("bad-weight", said(weight="1")),
    ("bad-weight", said(weight=None)),
    ("bad-name", row({**USER, "name": 3}, ANSWER)),
    ("bad-tool-calls", said(tool_calls=[])),
    ("bad-tool-calls", said(tool_calls="f")),
    ("bad-tool-calls", called(id=None)),
    ("bad-tool-calls", called(type="custom")),
    ("bad-tool-calls", called(function={"name": "f"})),
    ("bad-tool-calls", called(function={"arguments": "{}"})),
    ("bad-arguments", called(function={"name": "f", "arguments": "{"})),
    ("bad-arguments", called(function={"name": "f", "arguments": "[1]"})),
    (
        "missing-tool-call-id",
        row(USER, CALLING, RESULT, {"role": "tool", "content": "x"}, ANSWER, **TOOLS),
    ),
    ("too-long", said(content="word " * 700)),
    ("control-token-in-text", said(content="a <|im_end|> b")),
    ("blank-lines", "  \t"),
]
OVER_A_FILE = {"empty-file", "too-few-rows", "duplicate-row", "too-many-errors", "too-many-rows"}
NEEDS_ANOTHER_TEMPLATE = {"template-refuses", "nothing-rendered"}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def check(
    path: Path, *lines: str | bytes, renderer: Renderer | None = None, **limits: Any
) -> CheckReport:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(b"\n".join(raw))
    limits.setdefault("min_rows", 1)
    return check_file(path, CheckLimits(max_line_bytes=4500, **limits), renderer)


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_a_good_row_has_no_finding(number: int, renderer: Renderer, tmp_path: Path) -> None:
    report = check(tmp_path / "f.jsonl", GOOD[number], renderer=renderer)
    assert [f.one_line() for f in report.findings] == []
    assert (report.rows_total, report.rows_usable) == (1, 1)
    assert report.tokens > report.learned_tokens > 0


@pytest.mark.parametrize("number", range(len(BAD)), ids=lambda n: f"{BAD[n][0]}-{n}")
def test_a_bad_row_is_named_by_its_rule_and_line(
    number: int, renderer: Renderer, tmp_path: Path
) -> None:
    code, line = BAD[number]
    report = check(tmp_path / "f.jsonl", GOOD[0], line, GOOD[1], renderer=renderer)
    assert set(report.counts) == {code}, [f.one_line() for f in report.findings]
    finding = report.findings[0]
    assert (finding.rule, finding.line, finding.file) == (code, 2, "f.jsonl")
    assert finding.remedy
    assert len(finding.message) < 200
    if finding.severity is Severity.ERROR:
        assert list(report.bad_lines) == [2]
        assert (report.rows_total, report.rows_usable) == (3, 2)


def kind_of(code: str) -> RowKind:
    """The kind of rows that a rule's example is of."""
    if code in {rule.code for rule in TASK_ROW_RULES}:
        return RowKind.RFT
    if code in {rule.code for rule in (*PREFERENCE_ROW_RULES, INPUT_ENDS)}:
        return RowKind.PREFERENCE
    pairs = code in {rule.code for rule in PAIR_ROW_RULES}
    return RowKind.PROMPT_COMPLETION if pairs else RowKind.CHAT


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_pages_examples_are_bad_and_good(code: str, tmp_path: Path) -> None:
    kinds = (kind_of(code),)
    bad = check(tmp_path / "bad", EXAMPLES[code].bad, min_rows=0, kinds=kinds)
    assert code in bad.counts, dict(bad.counts)
    good = check(tmp_path / "good", EXAMPLES[code].good, kinds=kinds)
    assert dict(good.counts) == {}
    assert good.kind is kinds[0]


def counted(folder: Path, code: str, lines: Any, beside: Any) -> set[str]:
    """The rules that find something in a file, by the check or by the comparison."""
    example = FILE_EXAMPLES[code]
    made = {"bad": lines, "beside": beside}
    for name, content in made.items():
        raw = [line if isinstance(line, bytes) else line.encode() for line in content]
        (folder / name).write_bytes(b"\n".join(raw))
    if code in COMPARED:
        names = ["bad", "beside"] if beside else ["bad"]
        return set(check_content(*(folder / name for name in names)).counts)
    family = example.template
    model = make_folder(folder / "model", FAMILIES[family]) if family else None
    renderer = Renderer.load(model) if model else None
    kinds = (RowKind.RFT,) if code == "too-many-rows" else None
    limits = CheckLimits(**{"min_rows": 1, "kinds": kinds, **example.limits})
    return set(check_file(folder / "bad", limits, renderer).counts)


COMPARED = {rule.code for rule in CONTENT_RULES}


@pytest.mark.parametrize(
    "code",
    [pytest.param(c, marks=[pytest.mark.long] * (c in COMPARED)) for c in FILE_EXAMPLES],
)
def test_the_example_files_of_a_rule_break_it_and_keep_it(code: str, tmp_path: Path) -> None:
    example = FILE_EXAMPLES[code]
    beside_bad, beside_good = example.validation
    assert code in counted(tmp_path, code, example.bad, beside_bad)
    assert code not in counted(tmp_path, code, example.good, beside_good)


def test_every_rule_has_one_bad_and_one_good_fixture() -> None:
    shown = {*EXAMPLES, *FILE_EXAMPLES}
    assert EXAMPLES.keys().isdisjoint(FILE_EXAMPLES)
    # what no usual template does is held by a test of its own, below
    assert {rule.code for rule in ALL_RULES} == shown | {"nothing-rendered"}


def test_each_rule_has_a_bad_example() -> None:
    codes = {rule.code for rule in ALL_RULES}
    assert len(codes) == len(ALL_RULES)
    of_pairs = {rule.code for rule in PAIR_FILE_RULES}
    shown = {code for code, _ in BAD} | set(EXAMPLES)
    of_content = {rule.code for rule in CONTENT_RULES}
    assert codes == shown | OVER_A_FILE | of_pairs | of_content | NEEDS_ANOTHER_TEMPLATE


@pytest.mark.parametrize(
    ("kind", "length"),
    [(RowKind.PREFERENCE, 2), (RowKind.PROMPT_COMPLETION, 1), (RowKind.RFT, 1)],
)
def test_rows_of_every_kind_are_counted_in_tokens(
    kind: RowKind, length: int, renderer: Renderer, tmp_path: Path
) -> None:
    code = {"preference": "bad-output", "rft": "no-reference"}.get(kind, "missing-completion")
    report = check(tmp_path / "f", EXAMPLES[code].good, renderer=renderer, kinds=(kind,))
    assert (report.training_rows, report.rows_usable) == (length, 1)
    assert report.tokens > 0
    assert (report.learned_tokens == 0) == (kind is RowKind.RFT)
    long = EXAMPLES[code].good.replace("Hi", "word " * 600).replace("The", "word " * 600)
    assert "too-long" in check(tmp_path / "g", long, renderer=renderer, kinds=(kind,)).counts


def test_chats_in_a_job_for_preferences_miss_their_input(tmp_path: Path) -> None:
    report = check(tmp_path / "f", GOOD[0], kinds=KINDS_OF_METHOD["dpo"], min_rows=0)
    assert report.findings[0].message == "is missing key 'input'."
    assert report.findings[0].rule == "missing-preference-key"
    assert "method supervised" in report.findings[0].remedy
    pair = check(
        tmp_path / "g", EXAMPLES["bad-output"].good, kinds=KINDS_OF_METHOD["supervised"], min_rows=0
    )
    assert pair.findings[0].rule == "missing-messages"
    assert "method dpo" in pair.findings[0].remedy
    other = check(tmp_path / "h", "{}", kinds=KINDS_OF_METHOD["dpo"], min_rows=0)
    assert "supervised" not in other.findings[0].remedy


def test_messages_inside_a_preference_are_looked_at_and_placed(tmp_path: Path) -> None:
    liked = [{"role": "assistant", "content": ""}]
    chat = {"messages": [{"role": "user", "content": ""}], "tools": [{}], "x": 1}
    line = {"input": chat, "preferred_output": liked, "non_preferred_output": [ANSWER]}
    report = check(tmp_path / "f", json.dumps(line), min_rows=0)
    places = {(f.rule, f.message_number, f.field) for f in report.findings}
    assert places == {
        ("empty-content", 1, "content"),
        ("empty-content", None, "preferred_output[0].content"),
        ("bad-tools", None, "input.tools[0]"),
        ("unknown-row-key", None, "x"),
    }


def test_a_preference_may_say_that_it_has_no_tools_as_the_published_example_does(
    tmp_path: Path,
) -> None:
    chat = {"messages": [USER], "tools": [], "parallel_tool_calls": True}
    other = {"role": "assistant", "content": "No"}
    line = {"input": chat, "preferred_output": [ANSWER], "non_preferred_output": [other]}
    report = check(tmp_path / "f", json.dumps(line), min_rows=0)
    assert [f.rule for f in report.findings] == ["parallel-flag-without-effect"]


def pairs(*completions: str, prompt: str = "Q{n}", rows: int = 24) -> list[str]:
    texts = [completions[n % len(completions)] for n in range(rows)]
    return [
        json.dumps({"prompt": prompt.format(n=n), "completion": text.format(n=n)})
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("prompt-without-end", pairs(" {n} END", prompt="{n}? Q{n}")),
        ("completion-without-end", pairs(" ok{n}", prompt="{n} ->")),
        ("completion-starts-bare", pairs(" {n} END", "{n} END", prompt="{n} ->")),
        ("common-start", pairs(" {n} END", prompt="Tell me now: {n} ->")),
        ("upper-case", pairs(" {n} END", prompt="WHAT DO YOU WANT {n} ->")),
        ("very-long-pair", pairs(" {n} END", prompt="{n} " + "x" * 10_000 + " ->")),
    ],
)
def test_habits_of_raw_text_are_named(code: str, bad: list[str], tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "bad", bad), CheckLimits(), None)
    assert code in report.counts, dict(report.counts)
    assert not report.has_errors
    good = check_file(
        write(tmp_path / "good", pairs(" {n} END", prompt="{n} ->")), CheckLimits(), None
    )
    assert dict(good.counts) == {}


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_reinforcement_has_a_limit_of_rows(tmp_path: Path) -> None:
    lines = [EXAMPLES["no-reference"].good.replace("Hi", f"Hi {n}") for n in range(4)]
    report = check(tmp_path / "f", *lines, kinds=(RowKind.RFT,), max_rows=3)
    assert dict(report.counts) == {"too-many-rows": 1}


def test_rules_of_messages_name_the_message(tmp_path: Path) -> None:
    line = row(USER, ANSWER, {"role": "user", "content": ""}, ANSWER)
    (finding,) = check(tmp_path / "f.jsonl", line, min_rows=0).findings
    assert finding.message_number == 3
    assert finding.one_line().startswith("f.jsonl:1 message 3 [empty-content] ")


def test_a_row_may_have_many_findings(tmp_path: Path) -> None:
    line = row({"role": "user", "content": ""}, {**ANSWER, "weight": 2, "extra": 1}, weight=1)
    report = check(tmp_path / "f.jsonl", line, min_rows=0)
    assert dict(report.counts) == {
        "unknown-row-key": 1,
        "empty-content": 1,
        "unknown-message-key": 1,
        "bad-weight": 1,
    }
    assert report.errors == 4
    assert list(report.bad_lines) == [1]


def test_findings_never_repeat_what_people_wrote(renderer: Renderer, tmp_path: Path) -> None:
    canary = "xylophone canary 4711"
    lines = [json.dumps({canary: 1}), json.dumps({"messages": [{"role": canary, canary: canary}]})]
    lines += [row({"role": "user", "content": {canary: canary}}, {**ANSWER, "weight": canary})]
    lines += [canary, f'{{"{canary}": NaN}}', f'{{"{canary}": "\\ud800"}}', f'["{canary}"]']
    lines += [row(USER, {**CALLING, "tool_calls": [{**CALL, "function": canary}]})]
    lines += [row({**USER, "content": f"{canary} <|im_end|>"}, ANSWER)]
    report = check(tmp_path / "f.jsonl", *lines, renderer=renderer)
    text = "\n".join(f"{f.one_line()} {f.field}" for f in report.findings)
    assert len(report.findings) >= len(lines)
    assert "4711" not in text


def test_rules_over_a_template_that_is_choosy(tmp_path: Path) -> None:
    gemma = Renderer.load(make_folder(tmp_path / "gemma", FAMILIES["gemma"]))
    system = {"role": "system", "content": "s"}
    report = check(
        tmp_path / "f", GOOD[0], row(system, USER, ANSWER), row(USER, USER, ANSWER), renderer=gemma
    )
    assert dict(report.counts) == {"template-refuses": 2}
    assert [f.line for f in report.findings] == [2, 3]
    assert "System role not supported" in report.findings[0].message


def test_a_row_of_which_the_template_leaves_nothing_is_named() -> None:
    facts = RenderedFacts((), 0, 100, None, ())
    assert [fault.message for fault in nothing_rendered(facts)]
    assert not list(nothing_rendered(RenderedFacts((5,), 2, 100, None, ())))
    assert not list(nothing_rendered(RenderedFacts((), 0, 100, "refused", ())))


def test_the_page_of_rules_is_fresh() -> None:
    page = ROOT / "docs" / "rules.md"
    assert page.read_text() == catalogue(), "write it again with make docs"
