"""Operations of the hosted service that this version does not offer: a plain sentence for each.

They answer 404 in the envelope, with the operation's name, so that nobody searches for a typing
error. A new route takes its line out of this table.
"""

from __future__ import annotations

import re
from typing import Final

from afina.errors import NotFound

CODE: Final = "operation_not_offered"

_ABSENT: Final[tuple[tuple[str, str, str], ...]] = (
    (r".*", r"/fine_tuning/alpha/graders/.+", "Graders are"),
    (r"POST", r"/responses/compact", "Compacting of responses is"),
    (r".*", r"/conversations(/.*)?", "Conversations are"),
    (r".*", r"/evals(/.*)?", "Evals are"),
    (r".*", r"/(organization|projects)(/.*)?", "This part of the administration is"),
    (r".*", r"/images(/.*)?", "Images are"),
    (r".*", r"/audio(/.*)?", "Audio is"),
    (r".*", r"/videos(/.*)?", "Videos are"),
    (r".*", r"/realtime(/.*)?", "Realtime sessions are"),
    (r".*", r"/(assistants|threads)(/.*)?", "Assistants are"),
    (r".*", r"/vector_stores(/.*)?", "Vector stores are"),
    (r".*", r"/containers(/.*)?", "Containers are"),
    (r".*", r"/skills(/.*)?", "Skills are"),
    (r".*", r"/chatkit(/.*)?", "ChatKit is"),
    (r".*", r"/content_provenance_checks(/.*)?", "Content provenance checks are"),
    (r".*", r"/(agents|vaults)(/.*)?", "Agents are"),
    (r".*", r"/decisions(/.*)?", "Decisions are"),
    (r".*", r"/live(/.*)?", "Live sessions are"),
    (r".*", r"/safety(/.*)?", "Safety alerts and cases are"),
    (r".*", r"/prompts(/.*)?", "Stored prompts are"),
    (r".*", r"/fine-tunes(/.*)?", "The old fine-tunes operations (use fine_tuning/jobs) are"),
    (r".*", r"/engines(/.*)?", "The old engines operations (use models) are"),
    (r".*", r"/edits", "Edits are"),
)
_COMPILED: Final = tuple(
    (re.compile(methods), re.compile("/v1" + path), sentence) for methods, path, sentence in _ABSENT
)


def absence(method: str, path: str) -> NotFound | None:
    """The refusal for an operation that the hosted service has and this version has not."""
    for methods, pattern, subject in _COMPILED:
        if methods.fullmatch(method) and pattern.fullmatch(path):
            return NotFound(f"{subject} not offered by this version of afina.", code=CODE)
    return None
