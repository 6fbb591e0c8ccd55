"""A create that is asked twice happens once.

With an `Idempotency-Key`, the same key and body give the same answer for a day; the same key with
another body is refused. Without one, a client that says it retries gets the answer that the same
key, route and body had within ten minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.codec import decode, encode
from afina.domain.jobs import Job
from afina.errors import InvalidRequest
from afina.store.database import Tx
from afina.store.idempotency import Remembered, Slot, recall, remember

KEY_KEPT_S: Final = 24 * 3600
BODY_KEPT_S: Final = 600
MAX_KEY: Final = 255


@dataclass(frozen=True)
class Idempotency:
    """How a repeated create is recognised: by the client's key, else, if the client says that it
    retries, by the body within ten minutes."""

    body_sha256: str
    key: str | None = None
    retried: bool = False
    route: str = "POST /v1/fine_tuning/jobs"


def slot_of(caller: Caller, idempotency: Idempotency) -> Slot:
    """Where the answer is kept. Raises InvalidRequest for a key that is empty or too long."""
    if idempotency.key is None:
        return Slot(caller.key_id, idempotency.route, f"body:{idempotency.body_sha256}")
    if not 1 <= len(idempotency.key) <= MAX_KEY:
        raise InvalidRequest(
            f"An Idempotency-Key has 1 to {MAX_KEY} characters.",
            param="Idempotency-Key",
            code="invalid_value",
        )
    return Slot(caller.key_id, idempotency.route, f"key:{idempotency.key}")


def answered_before(tx: Tx, slot: Slot, idempotency: Idempotency, now: int) -> Job | None:
    """The job that this very request created before. Raises InvalidRequest for a key that was used
    with another body."""
    if idempotency.key is None and not idempotency.retried:
        return None
    remembered = recall(tx, slot, now)
    if remembered is None:
        return None
    if remembered.body_sha256 != idempotency.body_sha256:
        raise InvalidRequest(
            "This Idempotency-Key was used before with another request.",
            param="Idempotency-Key",
            code="idempotency_key_in_use",
            remedy="Use a new key for a new request.",
        )
    return decode(Job, remembered.answer, "job")


def keep_answer(tx: Tx, slot: Slot, idempotency: Idempotency, job: Job) -> None:
    """Keeps the answer in the transaction that makes it true."""
    kept_s = BODY_KEPT_S if idempotency.key is None else KEY_KEPT_S
    answer = Remembered(idempotency.body_sha256, encode(job))
    remember(tx, slot, answer, job.created_at + kept_s)
