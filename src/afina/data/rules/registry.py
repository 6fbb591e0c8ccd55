"""All rules of the check, in the order in which they run. This list is the documentation:
`afina.data.rules.pages` writes docs/rules.md from it, and a test holds the two equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from afina.data.rules import file, line, rendered
from afina.data.rules.chat_rules import MESSAGE_RULES, ROW_RULES
from afina.data.rules.content_rules import CONTENT_RULES
from afina.data.rules.kind_rules import (
    INPUT_ENDS,
    PAIR_FILE_RULES,
    PAIR_ROW_RULES,
    PREFERENCE_ROW_RULES,
    ROW_RULES_OF_KIND,
    TASK_ROW_RULES,
)
from afina.data.rules.rule import FileRule, LineRule, RenderedRule, Rule
from afina.domain.findings import Severity

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING

LINE_RULES: Final[Sequence[LineRule]] = (
    LineRule(
        "line-too-long",
        _ERROR,
        "A line has more bytes than the limit, so that it is not read into memory at all.",
        "Split the row, or leave it out.",
        line.line_too_long,
    ),
    LineRule(
        "not-utf8",
        _ERROR,
        "A line is not UTF-8, the only encoding that training files may have.",
        "Save the file as UTF-8, or let `afina data convert` do it.",
        line.not_utf8,
    ),
    LineRule(
        "too-deep",
        _ERROR,
        "Lists and objects are nested more deeply than any chat needs.",
        "Flatten the value.",
        line.too_deep,
    ),
    LineRule(
        "not-json",
        _ERROR,
        "A line is not a JSON value.",
        "Put one whole JSON object on each line, and mend the place that is named.",
        line.not_json,
    ),
    LineRule(
        "not-finite",
        _ERROR,
        "A line holds NaN, Infinity or a number out of range; most readers of JSON refuse it.",
        "Write null or a number.",
        line.not_finite,
    ),
    LineRule(
        "duplicate-key",
        _ERROR,
        "An object has the same key twice; readers differ in which of the two they keep.",
        "Keep one of them.",
        line.duplicate_key,
    ),
    LineRule(
        "lone-surrogate",
        _ERROR,
        "A string holds half of a surrogate pair: a character that was cut in two.",
        "Write the text again from its source, without cutting inside a character.",
        line.lone_surrogate,
    ),
)

RENDERED_RULES: Final[Sequence[RenderedRule]] = (
    RenderedRule(
        "template-refuses",
        _ERROR,
        "The model's chat template cannot write the chat: an order of roles, say, that the model "
        "was not made for.",
        "Change roles and their order to what the model knows, or choose another model.",
        rendered.template_refuses,
    ),
    RenderedRule(
        "too-long",
        _ERROR,
        "A row has more tokens than the model can read; afina never cuts a row in silence.",
        "Shorten or split the chat, or drop the row.",
        rendered.too_long,
    ),
    RenderedRule(
        "nothing-rendered",
        _ERROR,
        "The model's chat template drops every answer of the row.",
        "Drop the row, or choose another model.",
        rendered.nothing_rendered,
    ),
    RenderedRule(
        "control-token-in-text",
        _WARNING,
        "A text holds the name of one of the model's control tokens. It is trained as plain text "
        "and has no special meaning.",
        "Remove it if it came in by accident.",
        rendered.control_token_in_text,
    ),
)

FILE_RULES: Final[Sequence[FileRule]] = (
    FileRule(
        "empty-file",
        _ERROR,
        "The file has no rows.",
        "Give a file with one JSON object a line.",
        file.empty_file,
    ),
    FileRule(
        "too-few-rows",
        _ERROR,
        "The file has fewer usable rows than a job needs.",
        "Add examples; 50 to 100 good ones are a fair beginning.",
        file.too_few_rows,
    ),
    FileRule(
        "too-many-errors",
        _ERROR,
        "So many rows have errors that the check stopped; what comes after was not looked at.",
        "Mend how the file is made, and check it again.",
        file.too_many_errors,
    ),
    FileRule(
        "too-many-rows",
        _ERROR,
        "The file has more rows than reinforcement takes: 50,000 for training, 1,000 for "
        "validation.",
        "Take a sample of it, with `afina data split` say.",
        file.too_many_rows,
    ),
    FileRule(
        "parallel-flag-without-effect",
        _WARNING,
        "Rows say whether tools may be called in parallel. Training learns the calls that are "
        "there, so the flag changes nothing.",
        "Leave it out, and say it when you ask the model.",
        file.parallel_flag_without_effect,
    ),
    FileRule(
        "name-without-effect",
        _WARNING,
        "Messages name who speaks, and the model's chat template does not write names.",
        "Put the name into the text if it matters.",
        file.name_without_effect,
    ),
    FileRule(
        "blank-lines",
        _WARNING,
        "The file has blank lines; they are counted and passed over.",
        "Nothing needs to be done.",
        file.blank_lines,
    ),
    FileRule(
        "duplicate-row",
        _WARNING,
        "A row is the same, byte for byte, as an earlier one, and counts twice in training.",
        "Keep one of them, unless it is meant.",
        file.duplicate_rows,
    ),
)

ALL_RULES: Final[Sequence[Rule]] = (
    *LINE_RULES,
    *ROW_RULES,
    *MESSAGE_RULES,
    *PAIR_ROW_RULES,
    *PREFERENCE_ROW_RULES,
    INPUT_ENDS,
    *TASK_ROW_RULES,
    *RENDERED_RULES,
    *FILE_RULES,
    *PAIR_FILE_RULES,
    *CONTENT_RULES,
)

BY_CODE: Final[Mapping[str, Rule]] = {rule.code: rule for rule in ALL_RULES}

TITLES: Final[Sequence[tuple[str, Sequence[Rule]]]] = (
    ("Lines", LINE_RULES),
    ("Chat rows", ROW_RULES),
    ("Messages", MESSAGE_RULES),
    ("Prompt and completion", (*PAIR_ROW_RULES, *PAIR_FILE_RULES)),
    ("Preferences", (*PREFERENCE_ROW_RULES, INPUT_ENDS)),
    ("Reinforcement", TASK_ROW_RULES),
    ("What the model makes of a row", RENDERED_RULES),
    ("The file", FILE_RULES),
    ("What rows say together", CONTENT_RULES),
)

__all__ = [
    "ALL_RULES",
    "BY_CODE",
    "CONTENT_RULES",
    "FILE_RULES",
    "LINE_RULES",
    "MESSAGE_RULES",
    "PAIR_FILE_RULES",
    "RENDERED_RULES",
    "ROW_RULES",
    "ROW_RULES_OF_KIND",
    "TITLES",
]
