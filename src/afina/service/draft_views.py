"""What a draft's page shows beside the check: marks on rows, lengths, and what a tune would take.

Marks name kinds and categories, never the text that they stand for; nothing of them is stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from afina.data.distributions import Distributions, measure_rows
from afina.data.kinds import KINDS_OF_METHOD, RowKind
from afina.data.moderation.report import texts_of
from afina.data.personal.detect import find_in_field
from afina.data.personal.redaction import map_texts
from afina.domain import auto
from afina.domain.jobs import Hyperparameters
from afina.domain.rates import Load
from afina.service import bases
from afina.service.draft_files import Draft
from afina.service.draft_rows import DraftRow, Verdict, written_rows
from afina.service.drafts import folder_of
from afina.service.moderation import moderator_of
from afina.service.platform import Platform
from afina.service.pricing import prices_of
from afina.service.rates import rate_for


def personal_marks(rows: Sequence[DraftRow]) -> dict[int, dict[str, int]]:
    """Places with personal data or secrets, by kind, of each row that has any."""
    marks = {}
    for row in rows:
        found: Counter[str] = Counter()

        def count(text: str, where: str, found: Counter[str] = found) -> str:
            found.update(span.kind.value for span in find_in_field(text, where))
            return text

        if row.value is not None:
            map_texts(row.value, count)
        if found:
            marks[row.number] = dict(found)
    return marks


def moderation_marks(
    platform: Platform, rows: Sequence[DraftRow]
) -> dict[int, Mapping[str, float]]:
    """Flagged categories with their scores, of each row that has any. Raises Unavailable where
    there is no moderation, and what the engine says."""
    moderator = moderator_of(platform.settings)
    texts, owners = [], []
    for row in rows:
        for _, text in texts_of(row.text.encode("utf-8", "surrogatepass")):
            texts.append(text)
            owners.append(row.number)
    marks: dict[int, dict[str, float]] = {}
    for number, verdict in zip(owners, moderator.verdicts(texts), strict=True):
        for category, score in verdict.categories.items():
            kept = marks.setdefault(number, {})
            kept[category] = max(score, kept.get(category, 0.0))
    return dict(marks)


def lengths_of(platform: Platform, draft: Draft) -> Distributions:
    """How long the rows are that were not dropped, as they are now."""
    with written_rows(folder_of(platform, draft.id)) as path:
        return measure_rows(path, _kind_in(path))


def method_of(path: Path) -> str:
    """The method of tuning that a file's rows are for."""
    kind = _kind_in(path)
    return next(method for method, kinds in KINDS_OF_METHOD.items() if kind in kinds)


def _kind_in(path: Path) -> RowKind:
    with path.open("rb") as file:
        return _kind(file.readline())


@dataclass(frozen=True)
class DraftEstimate:
    """What a tune with the usable rows would take; `seconds` None where nobody measured."""

    resolved: Hyperparameters
    steps: int
    tokens: int
    seconds: float | None
    cost_pico: int


def estimate_draft(
    platform: Platform, draft: Draft, verdict: Verdict, asked: Hyperparameters
) -> DraftEstimate | None:
    """From the check's own count of tokens, so it costs nothing; None without a base or a row."""
    base = None if draft.base is None else bases.get_base(platform, draft.base)
    rows = verdict.rows_usable
    if base is None or rows <= 0 or not verdict.tokens:
        return None
    resolved = auto.resolve(asked, rows)
    epochs, batch = int(resolved.n_epochs), int(resolved.batch_size)
    tokens = verdict.tokens * epochs
    load = Load(tokens, rows * epochs, auto.total_steps(rows, batch, epochs))
    rate = rate_for(platform.settings, base, step_tokens=load.step_tokens)
    return DraftEstimate(
        resolved=resolved,
        steps=load.steps,
        tokens=tokens,
        seconds=rate.seconds(load) if rate else None,
        cost_pico=prices_of(platform.settings, base.id).training_cost(tokens),
    )


def _kind(first: bytes) -> RowKind:
    try:
        keys = set(json.loads(first))
    except (ValueError, TypeError):
        return RowKind.CHAT
    if "preferred_output" in keys:
        return RowKind.PREFERENCE
    return RowKind.PROMPT_COMPLETION if {"prompt", "completion"} <= keys else RowKind.CHAT
