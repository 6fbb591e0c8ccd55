"""The rules that each kind of rows has of its own, beside those that it shares with chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from afina.data.kinds import RowKind
from afina.data.rules import pair, preference, task
from afina.data.rules.chat_rules import ROW_RULES
from afina.data.rules.rule import PairRule, RowRule
from afina.domain.findings import Severity

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_CHAT: Final[Mapping[str, RowRule]] = {rule.code: rule for rule in ROW_RULES}

PAIR_ROW_RULES: Final[Sequence[RowRule]] = (
    RowRule(
        "missing-completion",
        _ERROR,
        "A prompt/completion row has no completion, so there is nothing to learn.",
        'Write {"prompt": "...", "completion": "..."} on each line.',
        pair.missing_completion,
    ),
    RowRule(
        "missing-prompt",
        _ERROR,
        "A prompt/completion row has no prompt.",
        'Write "prompt": "" where there is none.',
        pair.missing_prompt,
    ),
    RowRule(
        "pair-not-text",
        _ERROR,
        "A prompt or a completion is not a string.",
        "Write a string.",
        pair.pair_not_text,
    ),
    RowRule(
        "empty-completion",
        _ERROR,
        "A completion is empty or white space.",
        "Fill it in, or drop the row.",
        pair.empty_completion,
    ),
)

PREFERENCE_ROW_RULES: Final[Sequence[RowRule]] = (
    RowRule(
        "old-preference-key",
        _ERROR,
        "A preference row uses names that the service never took.",
        "Call them preferred_output and non_preferred_output.",
        preference.old_preference_key,
        stops=True,
    ),
    RowRule(
        "missing-preference-key",
        _ERROR,
        "A preference row lacks its input or one of its two answers.",
        'Write {"input": {"messages": [...]}, "preferred_output": [...], '
        '"non_preferred_output": [...]} on each line.',
        preference.missing_preference_key,
        stops=True,
    ),
    RowRule(
        "input-not-an-object",
        _ERROR,
        "The input of a preference row is no object.",
        'Write {"messages": [...]}.',
        preference.input_not_an_object,
        stops=True,
    ),
    RowRule(
        "bad-output",
        _ERROR,
        "An answer of a preference row is not exactly one text of the assistant.",
        'Write [{"role": "assistant", "content": "..."}].',
        preference.bad_output,
    ),
    RowRule(
        "same-outputs",
        _WARNING,
        "Both answers of a preference row are the same, so that it teaches nothing.",
        "Drop the row.",
        preference.same_outputs,
    ),
)
INPUT_ENDS: Final = RowRule(
    "input-ends-with-answer",
    _WARNING,
    "The input of a preference row ends with an answer, and another would follow it.",
    "End the input with what the user says.",
    preference.input_ends_with_answer,
)

TASK_ROW_RULES: Final[Sequence[RowRule]] = (
    RowRule(
        "last-not-user",
        _ERROR,
        "A row for reinforcement does not end with the user: the model is to answer, not to copy.",
        "Put the right answer under a key of its own, where graders read it as item.KEY.",
        task.last_not_user,
    ),
    RowRule(
        "no-reference",
        _WARNING,
        "A row for reinforcement has nothing that graders could compare an answer with.",
        "Add a key such as reference_answer, unless your grader needs none.",
        task.no_reference,
    ),
    RowRule(
        "reserved-key",
        _ERROR,
        'A row for reinforcement has a key "sample" or "item", which graders use for other things.',
        "Give the key another name.",
        task.reserved_key,
    ),
)

PAIR_FILE_RULES: Final[Sequence[PairRule]] = (
    PairRule(
        "prompt-without-end",
        _WARNING,
        "Prompts have no common end, so a model of raw text cannot see where the answer begins.",
        'End every prompt alike, with "\\n\\n###\\n\\n" say, and ask with the same end.',
        pair.prompt_without_end,
    ),
    PairRule(
        "completion-without-end",
        _WARNING,
        "Completions have no common end. The end of text is learned anyway; a stop sequence of "
        "your own is not.",
        "End every completion alike if you mean to stop at a text of your own.",
        pair.completion_without_end,
    ),
    PairRule(
        "completion-starts-bare",
        _WARNING,
        "Some completions begin with white space and some do not; tokenizers cut them differently.",
        "Begin all of them with one space.",
        pair.completion_starts_bare,
    ),
    PairRule(
        "common-start",
        _WARNING,
        "All prompts or all completions begin with the same long text, which is learned again and "
        "again.",
        "Leave the text out, unless you mean it.",
        pair.common_start,
    ),
    PairRule(
        "upper-case",
        _WARNING,
        "Rows are mostly in capital letters, which models know less well.",
        "Use small letters, unless the capitals are the point.",
        pair.upper_case,
    ),
    PairRule(
        "very-long-pair",
        _WARNING,
        "Rows have more than 10,000 characters.",
        "Look at whether they are one row each.",
        pair.very_long_pair,
    ),
)

_SHARED: Final = (
    "missing-messages",
    "messages-not-a-list",
    "no-messages",
    "message-not-an-object",
    "bad-parallel-flag",
    "bad-tools",
    "too-many-tools",
    "undefined-tool",
    "unmatched-tool-result",
    "unanswered-tool-call",
)
_UNKNOWN: Final = _CHAT["unknown-row-key"]
_IN_INPUT: Final = {code: _CHAT[code].find for code in _SHARED}
_IN_INPUT["bad-tools"] = preference.bad_input_tools

ROW_RULES_OF_KIND: Final[Mapping[RowKind, Sequence[RowRule]]] = {
    RowKind.CHAT: ROW_RULES,
    RowKind.PROMPT_COMPLETION: (
        _CHAT["not-an-object"],
        replace(_UNKNOWN, find=pair.unknown_pair_key),
        *PAIR_ROW_RULES,
    ),
    RowKind.PREFERENCE: (
        _CHAT["not-an-object"],
        *PREFERENCE_ROW_RULES,
        replace(_UNKNOWN, find=preference.unknown_preference_key),
        replace(_UNKNOWN, find=preference.unknown_input_key),
        *(
            replace(_CHAT[code], find=preference.inside_input(find))
            for code, find in _IN_INPUT.items()
        ),
        INPUT_ENDS,
    ),
    RowKind.RFT: (
        _CHAT["not-an-object"],
        *(_CHAT[code] for code in _SHARED),
        *TASK_ROW_RULES,
    ),
}
