"""What commonly goes wrong in JSON that people or other programs wrote: a slip and its remedy."""

from __future__ import annotations

import json
import re
from typing import Final

_TYPOGRAPHIC: Final = re.compile(r"[\u201c\u201d\u201e\u00ab\u00bb]")
_COMMA: Final = re.compile(r",\s*[}\]]")
_AROUND: Final = 40


def slip_of(text: str, position: int) -> str | None:
    """The slip at `position`, where a parser stopped, as a sentence; None for an unknown one."""
    if text.startswith("\ufeff"):
        return (
            "A byte order mark stands in front of it, as where files were joined: "
            "`afina data convert` leaves it out."
        )
    start = text.lstrip()
    near = text[max(0, position - _AROUND) : position + 2]
    if text[position : position + 1] == "'" or start.startswith(("{'", "['")):
        return "It is written with single quotes, as Python prints; write it with json.dumps."
    if _TYPOGRAPHIC.match(text[position : position + 1]):
        return 'Typographic quotation marks stand where plain ones (") must.'
    if _COMMA.search(near):
        return "A comma stands in front of a closing bracket; JSON has none there."
    if text[position:].strip() == "," and start.startswith("{"):
        return "A comma stands behind the object; each line is an object and no more."
    if text[position : position + 1] == "\0":
        return "The character U+0000 stands there: leave it out."
    if re.match(r"(?:True|False|None|undefined)\b", text[position:]):
        return "JSON writes true, false and null."
    return None


def complaint(error: json.JSONDecodeError) -> str:
    """What Python's reader says, to be followed by a place: some of it ends with `at`."""
    return error.msg.removesuffix(" at")
