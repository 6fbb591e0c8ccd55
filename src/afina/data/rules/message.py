"""Rules over one message: its role, its keys, its content, its weight."""

from __future__ import annotations

from typing import Final

from afina.data.rows import shown, shown_field, type_name
from afina.data.rules.rule import Fault, Faults, Message

_ALWAYS: Final = frozenset({"role", "content", "name"})
KEYS_BY_ROLE: Final = {
    "system": _ALWAYS,
    "developer": _ALWAYS,
    "user": _ALWAYS,
    "assistant": _ALWAYS | {"weight", "tool_calls", "function_call", "refusal"},
    "tool": _ALWAYS | {"tool_call_id"},
    "function": _ALWAYS,
}
_PICTURES: Final = frozenset({"image_url", "input_image", "image", "input_audio", "audio", "file"})


def missing_role(message: Message) -> Faults:
    if "role" not in message:
        yield Fault("Discriminator 'role' is missing in value.", field="role")


def unknown_role(message: Message) -> Faults:
    role = message["role"]
    if not isinstance(role, str) or role not in KEYS_BY_ROLE:
        yield Fault(f"has the role {shown(role)}.", field="role")


def unknown_message_key(message: Message) -> Faults:
    for key in message:
        if key not in KEYS_BY_ROLE[message["role"]]:
            yield Fault(f"contains an extra {shown(key)}.", field=shown_field(key))


def missing_content(message: Message) -> Faults:
    if message.get("content") is None and not _may_lack_content(message):
        how = "is null" if "content" in message else "is missing"
        yield Fault(f'"content" {how}.', field="content")


def wrong_content_type(message: Message) -> Faults:
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        yield Fault(f'"content" is {type_name(content)}, not a string.', field="content")


def empty_content(message: Message) -> Faults:
    content = message.get("content")
    if message["role"] in ("tool", "function") or _may_lack_content(message):
        return
    if isinstance(content, str) and not content.strip():
        yield Fault('"content" is empty.', field="content")
    elif isinstance(content, list) and not any(
        _part_text(part).strip() or _is_picture(part) for part in content
    ):
        yield Fault('"content" holds no text.', field="content")


def unsupported_part(message: Message) -> Faults:
    for place, part in enumerate(_parts(message)):
        if _is_picture(part):
            yield Fault(
                f'Part {place + 1} of "content" is of type {shown(_kind(part))}; afina takes text '
                "alone.",
                field=f"content[{place}]",
            )


def bad_part(message: Message) -> Faults:
    allowed = ("text", "refusal") if message["role"] == "assistant" else ("text",)
    for place, part in enumerate(_parts(message)):
        kind = _kind(part)
        if _is_picture(part):
            continue
        text = part.get(kind) if isinstance(part, dict) else None
        if kind not in allowed or not isinstance(text, str):
            yield Fault(
                f'Part {place + 1} of "content" is not an object with a type and a text.',
                field=f"content[{place}]",
            )


def bad_weight(message: Message) -> Faults:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        yield Fault('"weight" is not 0 or 1.', field="weight")


def bad_name(message: Message) -> Faults:
    for key in ("name", "refusal"):
        value = message.get(key)
        if value is not None and not isinstance(value, str):
            yield Fault(f'"{key}" is {type_name(value)}, not a string.', field=key)


def _may_lack_content(message: Message) -> bool:
    return message.get("role") == "assistant" and bool(
        message.get("tool_calls") or message.get("function_call") or message.get("refusal")
    )


def _parts(message: Message) -> list[object]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _kind(part: object) -> object:
    return part.get("type") if isinstance(part, dict) else None


def _is_picture(part: object) -> bool:
    kind = _kind(part)
    return isinstance(kind, str) and kind in _PICTURES


def _part_text(part: object) -> str:
    text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""
