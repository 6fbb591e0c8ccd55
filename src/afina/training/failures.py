"""What went wrong in a run, in the words of the `failed` event: code, message, remedy.

A message never carries text of the training rows: of an unexpected error only its kind is told.
"""

from __future__ import annotations

from afina.errors import AfinaError

_MEMORY_WORDS = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "failed to allocate",
)


def describe_failure(error: BaseException) -> dict[str, object]:
    """The data of a `failed` event."""
    if isinstance(error, AfinaError):
        return {
            "code": error.code or "server_error",
            "message": error.message,
            "remedy": error.remedy,
        }
    if is_out_of_memory(error):
        return {
            "code": "out_of_memory",
            "message": "The machine's memory does not suffice for this run.",
            "remedy": "Shorten the longest rows, close other programs, or choose a smaller base.",
        }
    return {
        "code": "server_error",
        "message": f"The trainer met an unexpected {type(error).__name__}.",
        "remedy": "The attempt's log.txt in the run directory says where.",
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or torch's means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _MEMORY_WORDS)
