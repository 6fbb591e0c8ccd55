"""What scores are worth against labels: by category, by language, and with 95 % intervals."""

from __future__ import annotations

from math import sqrt

import torch
from benchmarks.moderation_data import LANGUAGES, Sentence, labels

from afina.data.moderation.categories import CATEGORIES, DEFAULT_THRESHOLD


def f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / max(1, 2 * tp + fp + fn)


def interval(hits: int, count: int) -> str:
    """Wilson's 95 % interval of a share."""
    if not count:
        return "-"
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return f"{middle - half:.2f}-{middle + half:.2f}"


def by_category(scores: torch.Tensor, rows: list[Sentence]) -> dict[str, tuple[int, int, int]]:
    """True and false alarms and misses of each category that occurs, where the label is sure."""
    y, w = labels(rows)
    found = {}
    for i, name in enumerate(CATEGORIES):
        counted = w[:, i] > 0
        said, true = (scores[:, i] >= DEFAULT_THRESHOLD) & counted, (y[:, i] > 0) & counted
        if true.any():
            tp = int((said & true).sum())
            found[name] = (tp, int((said & ~true).sum()), int((~said & true).sum()))
    return found


def told(scores: torch.Tensor, rows: list[Sentence]) -> str:
    """The whole table. `scores` [rows, 13]."""
    lines = [f"{'category':24} {'n':>4} {'precision':>9} {'recall':>7} {'F1':>6}"]
    counts = by_category(scores, rows)
    for name, (tp, fp, fn) in counts.items():
        precision, recall = tp / max(1, tp + fp), tp / max(1, tp + fn)
        lines.append(
            f"{name:24} {tp + fn:4} {precision:9.3f} {recall:7.3f} {f1(tp, fp, fn):6.3f}"
            f"   recall {interval(tp, tp + fn)}"
        )
    lines.append(f"{'macro F1':47} {_macro(scores, rows):6.3f}   {_macro_interval(scores, rows)}")
    highest = scores.max(1).values
    bad = torch.tensor([s.category != "none" for s in rows])
    for name in ("all", *LANGUAGES):
        here = torch.tensor([name in ("all", s.language) for s in rows])
        if not here.any():
            continue
        said = (highest >= DEFAULT_THRESHOLD) & here
        tp, wrong = int((said & bad).sum()), int((said & ~bad).sum())
        fine, all_bad = int((~bad & here).sum()), int((bad & here).sum())
        part = [row for row, inside in zip(rows, here.tolist(), strict=True) if inside]
        lines.append(
            f"flagged, {name:4} precision {tp / max(1, tp + wrong):.3f} "
            f"({interval(tp, tp + wrong)}), recall {tp / max(1, all_bad):.3f} "
            f"({interval(tp, all_bad)}), false alarms {wrong / max(1, fine):.3f} "
            f"({interval(wrong, fine)}), macro F1 {_macro(scores[here], part):.3f}"
        )
    if bad.any() and not bad.all():
        order = highest.argsort(descending=True)
        right = bad[order].float().cumsum(0)
        precise, found = right / torch.arange(1, len(rows) + 1), right / right[-1]
        sure = found[precise >= 0.9]
        lines.append(
            f"recall at precision 0.90: {float(sure.max()) if len(sure) else 0.0:.3f}; "
            f"precision at recall 0.95: {float(precise[found >= 0.95].max()):.3f}"
        )
        lines.append(f"calibration error of the highest score: {_calibration(highest, bad):.3f}")
    return "\n".join(lines)


def _macro(scores: torch.Tensor, rows: list[Sentence]) -> float:
    every = [f1(*counts) for counts in by_category(scores, rows).values()]
    return sum(every) / max(1, len(every))


def _macro_interval(scores: torch.Tensor, rows: list[Sentence]) -> str:
    """95 % of 200 resamplings of the rows."""
    chance = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        drawn = torch.randint(len(rows), (len(rows),), generator=chance)
        found.append(_macro(scores[drawn], [rows[i] for i in drawn.tolist()]))
    found.sort()
    return f"{found[5]:.2f}-{found[194]:.2f}"


def _calibration(highest: torch.Tensor, bad: torch.Tensor) -> float:
    error = 0.0
    for low in range(10):
        inside = (highest >= low / 10) & (highest < (low + 1) / 10 + (low == 9))
        if inside.any():
            gap = abs(float(highest[inside].mean() - bad[inside].float().mean()))
            error += gap * float(inside.float().mean())
    return error
