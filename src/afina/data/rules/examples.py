"""A bad and a good row for each rule that one line can break: shown on the page, run as tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Example:
    """Lines of JSONL. `bad` breaks the rule, and `good` breaks none."""

    bad: str
    good: str


_HI: Final = '{"role": "user", "content": "Hi"}'
_YES: Final = '{"role": "assistant", "content": "Yes"}'
_DEF: Final = '"tools": [{"type": "function", "function": {"name": "clock"}}]'
_CALL: Final = '{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}'
_CALLING: Final = f'{{"role": "assistant", "tool_calls": [{_CALL}]}}'
_RESULT: Final = '{"role": "tool", "tool_call_id": "c1", "content": "9:00"}'
_INPUT: Final = f'{{"messages": [{_HI}]}}'
_NO: Final = '{"role": "assistant", "content": "No"}'


def _chat(*messages: str, more: str = "") -> str:
    return f'{{"messages": [{", ".join(messages)}]{", " + more if more else ""}}}'


def _user(more: str) -> str:
    return _chat(f'{{"role": "user", {more}}}', _YES)


def _answer(more: str) -> str:
    return _chat(_HI, f'{{"role": "assistant", {more}}}')


def _preference(chat: str = _INPUT, liked: str = f"[{_YES}]", other: str = f"[{_NO}]") -> str:
    return f'{{"input": {chat}, "preferred_output": {liked}, "non_preferred_output": {other}}}'


_GOOD: Final = _chat(_HI, _YES)
_TOOLS: Final = _chat(_HI, _CALLING, _RESULT, _YES, more=_DEF)
_PAIR: Final = '{"prompt": "The sky is", "completion": " blue."}'
_LIKED: Final = _preference()
_TASK: Final = _chat(_HI, more='"reference_answer": "Yes"')

EXAMPLES: Final[Mapping[str, Example]] = {
    "not-json": Example("{'messages': []}", _GOOD),
    "not-finite": Example(_answer('"content": "Yes", "weight": NaN'), _GOOD),
    "duplicate-key": Example(_answer('"content": "Yes", "content": "No"'), _GOOD),
    "lone-surrogate": Example(
        _answer('"content": "\\ud83d"'), _answer('"content": "\\ud83d\\ude00"')
    ),
    "not-an-object": Example("[1, 2]", _GOOD),
    "missing-messages": Example('{"question": "Hi", "answer": "Yes"}', _GOOD),
    "unknown-row-key": Example(_chat(_HI, _YES, more='"weight": 1'), _GOOD),
    "messages-not-a-list": Example('{"messages": "Hi"}', _GOOD),
    "no-messages": Example('{"messages": []}', _GOOD),
    "message-not-an-object": Example(_chat('"Hi"', _YES), _GOOD),
    "no-assistant-message": Example(_chat(_HI), _GOOD),
    "last-not-assistant": Example(_chat(_HI, _YES, _HI), _GOOD),
    "nothing-learned": Example(_answer('"content": "Yes", "weight": 0'), _GOOD),
    "bad-parallel-flag": Example(_chat(_HI, _YES, more='"parallel_tool_calls": "no"'), _GOOD),
    "bad-tools": Example(_chat(_HI, _YES, more='"tools": [{"name": "clock"}]'), _TOOLS),
    "undefined-tool": Example(_chat(_HI, _CALLING), _TOOLS),
    "unmatched-tool-result": Example(_chat(_HI, _RESULT, _YES), _TOOLS),
    "unanswered-tool-call": Example(_chat(_HI, _CALLING, _HI, _YES, more=_DEF), _TOOLS),
    "missing-role": Example(_chat('{"content": "Hi"}', _YES), _GOOD),
    "unknown-role": Example(_chat('{"role": "human", "content": "Hi"}', _YES), _GOOD),
    "unknown-message-key": Example(_user('"content": "Hi", "mood": "good"'), _GOOD),
    "missing-content": Example(_chat('{"role": "user"}', _YES), _GOOD),
    "wrong-content-type": Example(_answer('"content": 3'), _answer('"content": "3"')),
    "empty-content": Example(_answer('"content": " "'), _GOOD),
    "unsupported-part": Example(
        _user('"content": [{"type": "image_url", "image_url": {"url": "a.png"}}]'),
        _user('"content": [{"type": "text", "text": "A picture of a tree."}]'),
    ),
    "bad-part": Example(
        _user('"content": ["Hi"]'), _user('"content": [{"type": "text", "text": "Hi"}]')
    ),
    "bad-weight": Example(
        _answer('"content": "Yes", "weight": 0.5'), _answer('"content": "Yes", "weight": 1')
    ),
    "bad-name": Example(_user('"content": "Hi", "name": 3'), _GOOD),
    "bad-tool-calls": Example(
        _answer('"tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}]'), _TOOLS
    ),
    "bad-arguments": Example(_chat(_HI, _CALLING.replace('"{}"', '"now"'), more=_DEF), _TOOLS),
    "missing-tool-call-id": Example(
        _chat(_HI, _CALLING, '{"role": "tool", "content": "9:00"}', _YES, more=_DEF), _TOOLS
    ),
    "missing-completion": Example('{"prompt": "The sky is"}', _PAIR),
    "missing-prompt": Example('{"completion": " blue."}', '{"prompt": "", "completion": " blue."}'),
    "pair-not-text": Example('{"prompt": 3, "completion": " blue."}', _PAIR),
    "empty-completion": Example('{"prompt": "The sky is", "completion": " "}', _PAIR),
    "old-preference-key": Example(
        _LIKED.replace("preferred_output", "preferred_completion"), _LIKED
    ),
    "missing-preference-key": Example(f'{{"input": {_INPUT}}}', _LIKED),
    "input-not-an-object": Example(_preference('"Hi"'), _LIKED),
    "bad-output": Example(_preference(liked=f"[{_HI}]"), _LIKED),
    "same-outputs": Example(_preference(other=f"[{_YES}]"), _LIKED),
    "input-ends-with-answer": Example(_preference(f'{{"messages": [{_HI}, {_YES}]}}'), _LIKED),
    "last-not-user": Example(_chat(_HI, _YES, more='"reference_answer": "Yes"'), _TASK),
    "no-reference": Example(_chat(_HI), _TASK),
    "reserved-key": Example(_chat(_HI, more='"sample": "Yes"'), _TASK),
}
