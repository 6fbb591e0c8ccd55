"""All rules of the check, in the order in which they run. This list is the documentation:
`catalogue` writes docs/rules.md from it, and a test holds the two equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from afina.data.rules import file, line, message, rendered, row, tools
from afina.data.rules.rule import (
    FileRule,
    LineRule,
    MessageRule,
    RenderedRule,
    RowRule,
    Rule,
)
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

ROW_RULES: Final[Sequence[RowRule]] = (
    RowRule(
        "not-an-object",
        _ERROR,
        "A line is JSON but no object.",
        'Write {"messages": [...]} on each line.',
        row.not_an_object,
        stops=True,
    ),
    RowRule(
        "missing-messages",
        _ERROR,
        "A row has no messages.",
        'Put the chat under "messages"; `afina data convert` makes chats of other formats.',
        row.missing_messages,
        stops=True,
    ),
    RowRule(
        "unknown-row-key",
        _ERROR,
        "A row has a key that training rows do not have; it would have no effect.",
        "Remove the key. A weight belongs into an assistant's message.",
        row.unknown_row_key,
    ),
    RowRule(
        "messages-not-a-list",
        _ERROR,
        "The messages of a row are no list.",
        "Write a list of messages.",
        row.messages_not_a_list,
        stops=True,
    ),
    RowRule(
        "no-messages",
        _ERROR,
        "The list of messages is empty.",
        "Give at least a user's message and the assistant's answer.",
        row.no_messages,
        stops=True,
    ),
    RowRule(
        "message-not-an-object",
        _ERROR,
        "A message is no object.",
        'Write {"role": "...", "content": "..."} for each message.',
        row.message_not_an_object,
    ),
    RowRule(
        "no-assistant-message",
        _ERROR,
        "No message is the assistant's, so there is nothing to learn.",
        "End the chat with the answer that you want.",
        row.no_assistant_message,
    ),
    RowRule(
        "last-not-assistant",
        _ERROR,
        "The chat goes on after the last answer; what follows would be read and not learned.",
        "End the chat with the assistant's answer.",
        row.last_not_assistant,
    ),
    RowRule(
        "nothing-learned",
        _ERROR,
        "Every answer has weight 0, so the row would teach nothing.",
        "Give at least one answer the weight 1, or leave the row out.",
        row.nothing_learned,
    ),
    RowRule(
        "bad-parallel-flag",
        _ERROR,
        "`parallel_tool_calls` is not a boolean.",
        "Write true or false, or leave it out.",
        row.bad_parallel_flag,
    ),
    RowRule(
        "bad-tools",
        _ERROR,
        "The definitions of tools are not what a chat request would take.",
        'Write {"type": "function", "function": {"name": ..., "parameters": {...}}} for each.',
        tools.bad_tools,
    ),
    RowRule(
        "unmatched-tool-result",
        _ERROR,
        "A tool's message answers a call that was never made.",
        "Use the id of a call in an assistant's message before it.",
        tools.unmatched_tool_result,
    ),
    RowRule(
        "unanswered-tool-call",
        _WARNING,
        "A call is not answered before the chat goes on.",
        "Put a tool's message with the call's id after it.",
        tools.unanswered_tool_call,
    ),
)

MESSAGE_RULES: Final[Sequence[MessageRule]] = (
    MessageRule(
        "missing-role",
        _ERROR,
        "A message does not say who speaks.",
        "Add a role: system, developer, user, assistant or tool.",
        message.missing_role,
        stops=True,
    ),
    MessageRule(
        "unknown-role",
        _ERROR,
        "A message has a role that chats do not have.",
        "Use system, developer, user, assistant, tool or function.",
        message.unknown_role,
        stops=True,
    ),
    MessageRule(
        "unknown-message-key",
        _ERROR,
        "A message has a key that messages of its role do not have; it would have no effect.",
        "Remove the key.",
        message.unknown_message_key,
    ),
    MessageRule(
        "missing-content",
        _ERROR,
        "A message says nothing: its content is missing or null.",
        "Give it a text. Only an answer with tool calls may have none.",
        message.missing_content,
    ),
    MessageRule(
        "wrong-content-type",
        _ERROR,
        "The content of a message is neither a string nor a list of parts.",
        "Write a string.",
        message.wrong_content_type,
    ),
    MessageRule(
        "empty-content",
        _ERROR,
        "The content of a message is empty or white space.",
        "Fill it in, or drop the row.",
        message.empty_content,
    ),
    MessageRule(
        "unsupported-part",
        _ERROR,
        "A message holds a picture, a sound or a file; afina tunes and serves text.",
        "Leave the part out, or say in words what it shows.",
        message.unsupported_part,
    ),
    MessageRule(
        "bad-part",
        _ERROR,
        "A part of a message is not a text part.",
        'Write {"type": "text", "text": "..."}.',
        message.bad_part,
    ),
    MessageRule(
        "bad-weight",
        _ERROR,
        "The weight of an answer is neither 0 (not learned) nor 1 (learned).",
        "Write 0 or 1.",
        message.bad_weight,
    ),
    MessageRule(
        "bad-name",
        _ERROR,
        "The name or refusal of a message is not a string.",
        "Write a string, or leave it out.",
        message.bad_name,
    ),
    MessageRule(
        "bad-tool-calls",
        _ERROR,
        "The tool calls of an answer are not what a chat answer would hold.",
        'Write {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}.',
        tools.bad_tool_calls,
    ),
    MessageRule(
        "bad-arguments",
        _ERROR,
        "The arguments of a call are not a JSON object in a string.",
        "Write the arguments as JSON, in a string.",
        tools.bad_arguments,
    ),
    MessageRule(
        "missing-tool-call-id",
        _ERROR,
        "A tool's message does not say which call it answers.",
        "Add tool_call_id with the call's id.",
        tools.missing_tool_call_id,
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
    *RENDERED_RULES,
    *FILE_RULES,
)

_TITLES: Final = (
    ("Lines", LINE_RULES),
    ("Rows", ROW_RULES),
    ("Messages", MESSAGE_RULES),
    ("What the model makes of a row", RENDERED_RULES),
    ("The file", FILE_RULES),
)


def catalogue() -> str:
    """The page docs/rules.md."""
    parts = [
        "# The rules of `afina data check`",
        "",
        "The same rules run for the command, the API and a job. An error stops a job; a warning is",
        "said and counted. Every finding names the file, the line, the message where there is one,",
        "the rule and the remedy, and never repeats what people wrote: a key or a role is named",
        "only where it looks like a name. This page is generated from",
        "`afina.data.rules.registry`.",
    ]
    for title, rules in _TITLES:
        parts += ["", f"## {title}", "", "| rule | severity | what is wrong | remedy |"]
        parts.append("|---|---|---|---|")
        parts += [f"| `{r.code}` | {r.severity} | {r.doc} | {r.remedy} |" for r in rules]
    return "\n".join(parts) + "\n"
