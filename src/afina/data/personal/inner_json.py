"""JSON that stands in a text, written again with some of its values changed.

What is not changed stays as it was written: a model that is trained on a price of 12.50 must not
read 12.5.
"""

from __future__ import annotations

import json
from typing import Any


class Written(str):
    """A number with a fraction, as its text."""

    __slots__ = ()


def write_again(value: Any, like: str) -> str:
    """`value` as JSON, with spaces between its parts where the text `like` has them."""
    after_key = ": " if '": ' in like or ":" not in like else ":"
    between = ", " if ", " in like or "," not in like else ","
    return _written(value, after_key, between)


def _written(value: Any, after_key: str, between: str) -> str:
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, dict):
        fields = (
            f"{json.dumps(key, ensure_ascii=False)}{after_key}{_written(item, after_key, between)}"
            for key, item in value.items()
        )
        return f"{{{between.join(fields)}}}"
    if isinstance(value, list):
        return f"[{between.join(_written(item, after_key, between) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
