"""How a create that is asked twice is recognised: by its `Idempotency-Key`, or by the count of
retries that the official client sends."""

from __future__ import annotations

import hashlib
from typing import Final

from starlette.requests import Request

from afina.errors import InvalidRequest
from afina.service.once import Idempotency

_KEY_MOST: Final = 255


def is_retry(request: Request) -> bool:
    """Whether the official client says that it asks again."""
    count = request.headers.get("x-stainless-retry-count", "0")
    return count.isdecimal() and int(count[:9]) > 0


def idempotency_of(request: Request, raw: bytes, route: str) -> Idempotency:
    """What makes this create the same as an earlier one. Raises InvalidRequest for a key that is
    too long or empty."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _KEY_MOST:
        raise InvalidRequest(
            f"The header Idempotency-Key must have 1 to {_KEY_MOST} characters.",
            param="Idempotency-Key",
            code="invalid_value",
        )
    body = hashlib.sha256(raw).hexdigest()
    return Idempotency(body, key, is_retry(request), route)
