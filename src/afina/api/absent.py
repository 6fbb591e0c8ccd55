"""Operations of the hosted service that this version does not offer: what each is, and what to do.

They answer 404 in the envelope, with the operation's name, so that nobody searches for a typing
error. A new route takes its line out of this table.
"""

from __future__ import annotations

import re
from typing import Final

from afina.errors import NotFound

CODE: Final = "operation_not_offered"

_TURNS: Final = "Keep the turns in your program, or name the last answer: `previous_response_id`."
_TOOLS: Final = "Give the model function tools (`tools`), and run them in your program."
_TEXT_ALONE: Final = "The models here read and write text; keep another service for the rest."
_ABSENT: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        r".*", r"/fine_tuning/alpha/graders/.+", "Graders are",
        "Train with the method `supervised` or `dpo`, and score answers in your program.",
    ),
    (r"POST", r"/responses/compact", "Compacting of responses is", _TURNS),
    (r".*", r"/conversations(/.*)?", "Conversations are", _TURNS),
    (
        r".*", r"/evals(/.*)?", "Evals are",
        "Ask the model through POST /v1/batches and score its answers in your program, or compare "
        "models in the playground of the dashboard.",
    ),
    (
        r".*", r"/organization/usage/.+", "Usage of this kind is",
        "There are GET /v1/organization/usage/completions, /usage/embeddings, /usage/moderations "
        "and /costs.",
    ),
    (
        r".*", r"/(organization|projects)(/.*)?", "This part of the administration is",
        "There are projects, users, invites, service accounts, keys, rate limits, spend limits and "
        "alerts, usage, costs and the audit log: GET /docs lists them.",
    ),
    (r".*", r"/images(/.*)?", "Images are", _TEXT_ALONE),
    (r".*", r"/audio(/.*)?", "Audio is", _TEXT_ALONE),
    (r".*", r"/videos(/.*)?", "Videos are", _TEXT_ALONE),
    (
        r".*", r"/realtime(/.*)?", "Realtime sessions are",
        "Ask for an answer in pieces: POST /v1/chat/completions with `stream`.",
    ),
    (
        r".*", r"/(assistants|threads)(/.*)?", "Assistants are",
        "Use POST /v1/responses or POST /v1/chat/completions, which take instructions and tools.",
    ),
    (
        r".*", r"/vector_stores(/.*)?", "Vector stores are",
        "Find passages with POST /v1/embeddings and an index of your own, and send them along.",
    ),
    (r".*", r"/containers(/.*)?", "Containers are", _TOOLS),
    (r".*", r"/skills(/.*)?", "Skills are", _TOOLS),
    (r".*", r"/chatkit(/.*)?", "ChatKit is", "Use POST /v1/responses behind a chat of your own."),
    (
        r".*", r"/content_provenance_checks(/.*)?", "Content provenance checks are",
        "Nothing here marks what it writes.",
    ),
    (r".*", r"/(agents|vaults)(/.*)?", "Agents are", _TOOLS),
    (r".*", r"/decisions(/.*)?", "Decisions are", "Ask POST /v1/responses with a `json_schema`."),
    (
        r".*", r"/live(/.*)?", "Live sessions are",
        "Ask for an answer in pieces: POST /v1/chat/completions with `stream`.",
    ),
    (
        r".*", r"/safety(/.*)?", "Safety alerts and cases are",
        "POST /v1/moderations judges texts; GET /v1/afina/watch lists keys that draw attention.",
    ),
    (
        r".*", r"/prompts(/.*)?", "Stored prompts are",
        "Send the text itself, as `instructions` or as a message.",
    ),
    (
        r".*", r"/fine-tunes(/.*)?",
        "The old fine-tunes operations (use fine_tuning/jobs) are",
        "POST /v1/fine_tuning/jobs takes the same file as chats; `afina data convert` makes them.",
    ),
    (
        r".*", r"/engines(/.*)?", "The old engines operations (use models) are",
        "GET /v1/models lists what answers; name it in the field `model`.",
    ),
    (
        r".*", r"/edits", "Edits are",
        "Ask POST /v1/chat/completions with the text and what to change.",
    ),
    (
        r".*", r"/(answers|classifications|search)(/.*)?",
        "The old answers, classifications and search are",
        "Ask POST /v1/chat/completions; POST /v1/embeddings compares texts.",
    ),
)  # fmt: skip
_COMPILED: Final = tuple(
    (re.compile(methods), re.compile("/v1" + path), subject, remedy)
    for methods, path, subject, remedy in _ABSENT
)


def absence(method: str, path: str) -> NotFound | None:
    """The refusal for an operation that the hosted service has and this version has not."""
    for methods, pattern, subject, remedy in _COMPILED:
        if methods.fullmatch(method) and pattern.fullmatch(path):
            said = f"{subject} not offered by this version of afina."
            return NotFound(said, code=CODE, remedy=remedy)
    return None
