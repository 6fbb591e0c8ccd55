"""The rules over chat rows and over messages, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from afina.data.rules import message, row, tools
from afina.data.rules.rule import MessageRule, RowRule
from afina.domain.findings import Severity

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING

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
        "too-many-tools",
        _ERROR,
        "A row defines more tools than a request may have.",
        "Define at most 128, those that the chat needs.",
        tools.too_many_functions,
    ),
    RowRule(
        "undefined-tool",
        _WARNING,
        "An answer calls a tool that the row does not define; asked with its definition, the model "
        "sees another prompt than it was trained on.",
        "Add the tool's definition under tools.",
        tools.undefined_tool,
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
