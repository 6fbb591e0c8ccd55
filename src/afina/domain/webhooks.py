"""Webhooks: endpoints, deliveries, and the signature of Standard Webhooks.

A signature is base64(HMAC-SHA256(key, "{id}.{timestamp}.{body}")), where the key is what follows
`whsec_` in the secret, decoded from base64 (standardwebhooks.com).
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how every secret begins, not one
OLD_SECRET_S: Final = 24 * 3600
"""How long an old secret signs beside the new one, where that was asked for."""
GIVE_UP_S: Final = 72 * 3600
"""A delivery that has failed for so long is dead; an endpoint that has, is switched off."""
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 4 * 3600.0

EVENT_TYPES: Final = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "afina.watch.triggered",
)
"""What happens here, the last of them our own; the wire API names more, which are refused."""


class DeliveryState(enum.StrEnum):
    """`dead` letters are kept for a month and can be sent again by hand."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class WebhookEndpoint:
    """Who wants to be told of what. `secret` leaves the platform only when it is made."""

    id: str
    project_id: str
    name: str
    url: str
    event_types: tuple[str, ...]
    secret: str
    created_at: int
    updated_at: int
    old_secret: str | None = None
    old_secret_until: int | None = None
    failing_since: int | None = None
    disabled_at: int | None = None

    @property
    def hint(self) -> str:
        """The secret's end."""
        return f"{SECRET_PREFIX}…{self.secret[-4:]}"

    def secrets(self, now: int) -> list[str]:
        """Those that sign now, the newest first."""
        old = self.old_secret if now < (self.old_secret_until or 0) else None
        return [self.secret] if old is None else [self.secret, old]


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    body: str
    created_at: int
    state: DeliveryState = DeliveryState.PENDING
    available_at: float = 0.0
    attempts: int = 0
    status_code: int | None = None
    last_error: str | None = None
    done_at: int | None = None


def signed_headers(
    delivery_id: str, timestamp: int, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """The three headers that a receiver checks."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        signatures.append("v1," + base64.b64encode(digest).decode())
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def pause_s(attempts: int, chance: float) -> float:
    """How long to wait after the n-th failure: 5 s, tripled each time up to four hours, and up to
    a quarter more by `chance` (0 to 1), so that receivers are not stormed."""
    pause = min(_FIRST_PAUSE_S * 3.0 ** (attempts - 1), _LONGEST_PAUSE_S)
    return pause * (1 + chance / 4)
