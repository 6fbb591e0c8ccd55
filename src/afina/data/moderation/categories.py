"""The thirteen categories, under the names that OpenAI's moderation gives them.

What each means here stands in MODEL_CARD.md beside this file. A category with a parent is flagged
together with it: hate that threatens is hate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from afina.inside_settings import MODERATION_CATEGORIES

CATEGORIES: Final = MODERATION_CATEGORIES
PARENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "harassment/threatening": ("harassment", "violence"),
    "hate/threatening": ("hate", "violence"),
    "illicit/violent": ("illicit",),
    "self-harm/instructions": ("self-harm",),
    "self-harm/intent": ("self-harm",),
    "sexual/minors": ("sexual",),
    "violence/graphic": ("violence",),
}
DEFAULT_THRESHOLD: Final = 0.5
"""Scores are calibrated so that this is where a sentence is as likely flagged as not."""


def with_parents(scores: Sequence[float]) -> list[float]:
    """Scores in which no category is below one that it contains."""
    made = list(scores)
    for child, parents in PARENTS.items():
        for parent in parents:
            place = CATEGORIES.index(parent)
            made[place] = max(made[place], made[CATEGORIES.index(child)])
    return made


def flagged(scores: Sequence[float], thresholds: Mapping[str, float]) -> dict[str, float]:
    """The categories at or above their thresholds, with their scores, highest first."""
    found = {
        name: score
        for name, score in zip(CATEGORIES, scores, strict=True)
        if score >= thresholds.get(name, DEFAULT_THRESHOLD)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))
