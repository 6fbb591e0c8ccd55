"""A create that is asked twice happens once.

With an `Idempotency-Key`, the same key and body give the same answer for a day; the same key with
another body is refused. Without one, a client that says it retries gets the answer that the same
key, route and body had within ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

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
    answer = recalled(tx, slot, idempotency, now)
    return None if answer is None else decode(Job, answer, "job")


def keep_answer(tx: Tx, slot: Slot, idempotency: Idempotency, job: Job) -> None:
    """Keeps the answer in the transaction that makes it true."""
    keep(tx, slot, idempotency, encode(job), job.created_at)


def recalled(tx: Tx, slot: Slot, idempotency: Idempotency, now: int) -> Mapping[str, Any] | None:
    """What was answered to this very request before. Raises InvalidRequest for a key that was used
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
    return remembered.answer


def keep(tx: Tx, slot: Slot, idempotency: Idempotency, answer: Mapping[str, Any], now: int) -> None:
    """Keeps any answer in the transaction that makes it true."""
    kept_s = BODY_KEPT_S if idempotency.key is None else KEY_KEPT_S
    remember(tx, slot, Remembered(idempotency.body_sha256, answer), now + kept_s)


T = TypeVar("T")


def once(
    tx: Tx,
    caller: Caller,
    idempotency: Idempotency | None,
    now: int,
    verb: tuple[type[T], Callable[[], T]],
) -> T:
    """Carries out a create, or gives what the same request made before; `verb` is the kind of the
    value that it makes, and what makes it in this transaction."""
    kind, create = verb
    if idempotency is None:
        return create()
    slot = slot_of(caller, idempotency)
    answer = recalled(tx, slot, idempotency, now)
    if answer is not None:
        return decode(kind, answer, "answer")
    made = create()
    keep(tx, slot, idempotency, encode(made), now)
    return made
