"""Ids of objects on the wire, with the prefixes that OpenAI's clients know.

Ids are random (about 142 bits in 24 characters of base 62) and never come from a user. Tests
pass a seeded `Ids`; the platform uses `SYSTEM_IDS`.
"""

from __future__ import annotations

import random
import string
from typing import Final

_ALPHABET: Final = (string.ascii_letters + string.digits).encode()
_FAIR: Final = 256 - 256 % len(_ALPHABET)
_LETTER_OF: Final = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_UNFAIR: Final = bytes(range(_FAIR, 256))
"""Bytes that are thrown away: with them the first letters would be likelier than the others."""
_SPARE: Final = 8

FILE: Final = "file-"
JOB: Final = "ftjob-"
EVENT: Final = "ftevent-"
CHECKPOINT: Final = "ftckpt_"
CHAT: Final = "chatcmpl-"
CALL: Final = "call_"
COMPLETION: Final = "cmpl-"
RESPONSE: Final = "resp_"
MODERATION: Final = "modr-"
MESSAGE: Final = "msg_"
FUNCTION_CALL: Final = "fc_"
REQUEST: Final = "req_"
KEY: Final = "key_"
ENTRY: Final = "led_"
PROJECT: Final = "proj_"
ORGANIZATION: Final = "org-"
OUTBOX: Final = "out_"
USER: Final = "user-"
SERVICE_ACCOUNT: Final = "svc_acct_"
INVITE: Final = "invite-"
ALERT: Final = "alert_"
AUDIT: Final = "audit_log-"
UPLOAD: Final = "upload_"
PART: Final = "part_"
BATCH: Final = "batch_"
BATCH_LINE: Final = "batch_req_"
WEBHOOK: Final = "we_"
WEBHOOK_EVENT: Final = "evt_"
DELIVERY: Final = "wh_"
PERMISSION: Final = "cp_"
ALIAS: Final = "alias_"


class Ids:
    """Makes ids and keys. A seed makes them repeatable, for tests alone."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = (
            random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311
        )

    def new(self, prefix: str, length: int = 24) -> str:
        """An id such as `ftjob-` and 24 characters of [a-zA-Z0-9]."""
        letters = b""
        while len(letters) < length:
            # Each question to the system's source takes as long as a dozen lines of this: one
            # for all letters, and some more for the bytes that are thrown away.
            drawn = self._random.randbytes(length + _SPARE)
            letters += drawn.translate(_LETTER_OF, _UNFAIR)
        return prefix + letters[:length].decode()

    def model_suffix(self) -> str:
        """The eight characters at the end of a tuned model's name."""
        return self.new("", 8)

    def secret(self) -> str:
        """A new API key: `sk-afina-` and 43 characters, 256 bits of randomness."""
        return self.new("sk-afina-", 43)

    def admin_secret(self) -> str:
        """A new admin key: `sk-afina-admin-` and 43 characters."""
        return self.new("sk-afina-admin-", 43)

    def seed(self) -> int:
        """A seed for a job that named none: 0 to 2147483647."""
        return self._random.randrange(2**31)


SYSTEM_IDS: Final = Ids()
