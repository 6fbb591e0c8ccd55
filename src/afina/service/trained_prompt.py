"""The system prompt that a tuned model was trained with, for who asks it by hand."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Final

from afina.domain.accounts import Caller
from afina.errors import AfinaError
from afina.service.files import open_file
from afina.service.jobs import get_job
from afina.service.models import get_model
from afina.service.platform import Platform

_LOOKED_AT: Final = 200
_LONGEST_LINE: Final = 1024 * 1024
_ROLES: Final = frozenset({"system", "developer"})


def trained_prompt(platform: Platform, caller: Caller, name: str) -> str | None:
    """The system prompt that most of the first rows have, "" where most have none; None for a base
    and where the training file is gone. Raises ModelNotFound."""
    entry = get_model(platform, caller, name)
    if entry.tuned is None or entry.tuned.job_id is None:
        return None
    try:
        job = get_job(platform, caller, entry.tuned.job_id)
        _, handle = open_file(platform, caller, job.training_file)
    except AfinaError:
        return None
    with handle:
        lines = iter(lambda: handle.readline(_LONGEST_LINE), b"")
        found = Counter(_system(line) for line in islice(lines, _LOOKED_AT))
    return found.most_common(1)[0][0] if found else None


def _system(line: bytes) -> str:
    try:
        first = json.loads(line)["messages"][0]
        return str(first["content"]) if first["role"] in _ROLES else ""
    except (ValueError, LookupError, TypeError):
        return ""
