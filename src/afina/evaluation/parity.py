"""Is a tune served as it was trained? What the trainer saw against what the engine scores.

The trainer continued a few prompts greedily and kept the best candidates of each position; the
engine scores the same forced ids by the path it serves with. Only the best candidates cross over,
so distributions are compared over those and one rest; an id that the other side does not list
counts as the least that it lists, which never makes a difference look larger than it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from afina.domain.runs import ParityRow
from afina.errors import Internal
from afina.serving.protocol import Scored

MEAN_KL_LIMITS: Final[Mapping[str, float]] = {
    "fp32": 1e-6,
    "bf16": 5e-3,
    "int8": 5e-2,
    "int4": 5e-2,
}
_DOUBT: Final = 3.0
"""Standard errors by which the mean of the positions may be too high by chance."""
_MOST_DOUBT: Final = 4.0
"""Times the limit, above which no chance is granted however few the positions are."""
MARGIN_LIMIT: Final = 0.5
"""How sure (nat) the trainer may be of a first choice that the engine does not share."""
_AT_ONCE: Final = 8
_SMALLEST: Final = 1e-9


class ParityFailed(Internal):
    """The served model does not compute what the trainer computed."""


@dataclass(frozen=True)
class ParityReport:
    """The record that stands with a tuned model. Logarithms are natural."""

    prompts: int
    positions: int
    mean_kl: float
    largest_difference: float
    """Of a log-probability, over the candidates that both sides list."""
    agreement: float
    """Share of positions with the same first choice."""
    largest_margin: float
    """Of the trainer's first choice over the engine's, where they differ; 0 if they never do."""
    precision: str
    """The trainer's: bf16 or fp32, or int4 where it held the base in 4 bits."""
    engine_precision: str
    mean_kl_limit: float
    """Of rounding in this precision, and of chance where the positions are few."""
    margin_limit: float
    passed: bool
    reasons: tuple[str, ...] = ()
    """Why not, if not."""
    engine: str = "afina"
    """What answered: afina's own engine, or the server behind it by its version."""

    def check(self) -> None:
        """Raises ParityFailed with the reasons unless it passed."""
        if not self.passed:
            raise ParityFailed(
                "The served model does not compute what the trainer computed: "
                f"{'; '.join(self.reasons)}.",
                code="parity_failed",
                remedy="It is not published. Its run directory keeps the checkpoints.",
            )


def compare(
    rows: Sequence[ParityRow], score: Callable[[ParityRow], Scored], precision: str
) -> ParityReport:
    """The report on `rows`. `score` asks the engine, and is called from a few threads at once."""
    if not rows:
        raise Internal("The run kept no parity rows, so the tune cannot be proven.")
    with ThreadPoolExecutor(min(len(rows), _AT_ONCE)) as pool:
        scored = list(pool.map(score, rows))
    places = [place for pair in zip(rows, scored, strict=True) for place in _places(*pair)]
    if not places:
        raise Internal("The run's parity rows hold no position, so the tune cannot be proven.")
    return _report(len(rows), places, precision, scored[0])


@dataclass(frozen=True)
class _Place:
    """One position's comparison."""

    kl: float
    difference: float
    agrees: bool
    margin: float


def _report(prompts: int, places: list[_Place], precision: str, told: Scored) -> ParityReport:
    divergences = [place.kl for place in places]
    mean_kl = math.fsum(divergences) / len(places)
    margin = max(place.margin for place in places)
    limit = max(MEAN_KL_LIMITS.get(p, MEAN_KL_LIMITS["fp32"]) for p in (precision, told.precision))
    limit = min(limit + _DOUBT * _standard_error(divergences), _MOST_DOUBT * limit)
    reasons = []
    if not mean_kl <= limit:
        reasons.append(f"the mean KL divergence is {mean_kl:.3g} and may be {limit:.3g}")
    if not margin <= MARGIN_LIMIT:
        reasons.append(
            f"the engine prefers another token where the trainer was sure by {margin:.3g} nat "
            f"(limit {MARGIN_LIMIT})"
        )
    return ParityReport(
        prompts=prompts,
        positions=len(places),
        mean_kl=mean_kl,
        largest_difference=max(place.difference for place in places),
        agreement=sum(place.agrees for place in places) / len(places),
        largest_margin=margin,
        precision=precision,
        engine_precision=told.precision,
        mean_kl_limit=limit,
        margin_limit=MARGIN_LIMIT,
        passed=not reasons,
        reasons=tuple(reasons),
        engine=told.engine,
    )


def _standard_error(values: Sequence[float]) -> float:
    """Of their mean: short answers are few positions, whose mean a handful of them decides."""
    if len(values) < 2:
        return 0.0
    return statistics.stdev(values) / math.sqrt(len(values))


def _places(row: ParityRow, scored: Scored) -> list[_Place]:
    if len(scored.logprobs) != len(row.ids):
        raise Internal(
            f"The engine scored {len(scored.logprobs)} positions of {len(row.ids)}: "
            "trainer and engine do not speak of the same tokens."
        )
    return [
        _place(
            dict(zip(row.top_ids[i], row.top_logprobs[i], strict=True)),
            dict(zip(scored.top_ids[i], scored.top_logprobs[i], strict=True)),
            abs(row.logprobs[i] - scored.logprobs[i]),
        )
        for i in range(len(row.ids))
    ]


def _place(ours: dict[int, float], theirs: dict[int, float], forced: float) -> _Place:
    first, other = _first(ours), _first(theirs)
    margin = 0.0
    if first != other:
        margin = ours[first] - ours.get(other, min(ours.values()))
    common = [abs(ours[id] - theirs[id]) for id in ours if id in theirs]
    return _Place(_kl(ours, theirs), max([forced, *common]), first == other, margin)


def _first(candidates: dict[int, float]) -> int:
    # Equal candidates (bf16 has few digits) are not a disagreement: the lowest id stands for all.
    best = max(candidates.values())
    return min(id for id, value in candidates.items() if value == best)


def _kl(ours: dict[int, float], theirs: dict[int, float]) -> float:
    least = min(theirs.values())
    p = [math.exp(value) for value in ours.values()]
    q = [math.exp(theirs.get(id, least)) for id in ours]
    p.append(max(1.0 - math.fsum(p), _SMALLEST))
    q.append(max(1.0 - math.fsum(q), _SMALLEST))
    total_p, total_q = math.fsum(p), math.fsum(q)
    return max(
        0.0,
        math.fsum(
            a / total_p * math.log((a / total_p) / max(b / total_q, 1e-300))
            for a, b in zip(p, q, strict=True)
            if a > 0
        ),
    )
