"""A fault in the log says where it came from, and none of a user's words."""

from __future__ import annotations

import errno

from afina.pipeline.faults import fault_of

CANARY = "what a user wrote"


def caught(error: Exception) -> dict[str, str]:
    try:
        raise error
    except Exception as raised:  # noqa: BLE001 - any that is given
        return fault_of(raised)


def test_a_fault_holds_no_words_of_the_error() -> None:
    told = caught(ValueError(CANARY))
    assert told["exception"] == "ValueError"
    assert "test_faults.py" in told["frames"]
    assert CANARY not in str(told)


def test_what_the_system_says_of_the_disk_is_told() -> None:
    told = caught(OSError(errno.ENOSPC, CANARY))
    assert told["reason"] == "No space left on device"
    assert CANARY not in str(told)
    assert "reason" not in caught(OSError(CANARY))
