"""How good and how fast the moderation model is, on sentences that it was never trained on.

    python benchmarks/moderation.py [--wrong]

Prints precision, recall and F1 of each category, what is flagged at all, calibration, and short
messages a second on one core. `--wrong` lists what it got wrong.
"""

from __future__ import annotations

import argparse
import time

import torch

from afina.data.moderation.categories import CATEGORIES, DEFAULT_THRESHOLD
from afina.data.moderation.pieces import joined, pieces_of
from afina.model.encoder import Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import ModerationHead
from afina.settings import Settings
from moderation_data import LANGUAGES, labels, sentences_of_the_test


def scored(encoder: Encoder, head: ModerationHead, texts: list[str]) -> torch.Tensor:
    split = [pieces_of(text) for text in texts]
    flat = [piece for pieces in split for piece in pieces]
    ids = encoder.tokenizer.ids([head.prefix + piece for piece in flat])
    return torch.tensor(joined(split, head.scores(encoder, ids, flat)))


def f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / max(1, 2 * tp + fp + fn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wrong", action="store_true")
    given = parser.parse_args()
    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    encoder = Encoder(ensure_encoder(Settings.load().encoders, print), dtype)
    head = ModerationHead.load(encoder)
    rows = sentences_of_the_test()
    scores = scored(encoder, head, [s.text for s in rows])
    y, w = labels(rows)
    print(f"{len(rows)} sentences, {head.version}, {dtype}\n")
    print(f"{'category':24} {'n':>4} {'precision':>9} {'recall':>7} {'F1':>6}")
    every = []
    for i, name in enumerate(CATEGORIES):
        counted = w[:, i] > 0
        said, true = (scores[:, i] >= DEFAULT_THRESHOLD) & counted, (y[:, i] > 0) & counted
        tp, fp = int((said & true).sum()), int((said & ~true).sum())
        fn = int((~said & true).sum())
        every.append(f1(tp, fp, fn))
        precision, recall = tp / max(1, tp + fp), tp / max(1, tp + fn)
        print(f"{name:24} {tp + fn:4} {precision:9.3f} {recall:7.3f} {every[-1]:6.3f}")
    print(f"{'macro F1':24} {'':4} {'':9} {'':7} {sum(every) / len(every):6.3f}\n")
    highest = scores.max(1).values
    bad = torch.tensor([s.category != "none" for s in rows])
    for name in ("all", *LANGUAGES):
        here = torch.tensor([name in ("all", s.language) for s in rows])
        said = (highest >= DEFAULT_THRESHOLD) & here
        tp = int((said & bad).sum())
        print(
            f"flagged, {name:4} precision {tp / max(1, int(said.sum())):.3f}, recall "
            f"{tp / int((bad & here).sum()):.3f}, false alarms on hard negatives "
            f"{int((said & ~bad).sum()) / int((~bad & here).sum()):.3f}"
        )
    order = highest.argsort(descending=True)
    right = bad[order].float().cumsum(0)
    precision, recall = right / torch.arange(1, len(rows) + 1), right / right[-1]
    print(f"recall at precision 0.90: {float(recall[precision >= 0.9].max()):.3f}; "
          f"precision at recall 0.95: {float(precision[recall >= 0.95][0]):.3f}")  # fmt: skip
    error = 0.0
    for low in range(10):
        inside = (highest >= low / 10) & (highest < (low + 1) / 10 + (low == 9))
        if inside.any():
            gap = abs(float(highest[inside].mean() - bad[inside].float().mean()))
            error += gap * float(inside.float().mean())
    print(f"expected calibration error of the highest score: {error:.3f}")
    if given.wrong:
        for sentence, row in zip(rows, scores, strict=True):
            top = int(row.argmax())
            if (float(row[top]) >= DEFAULT_THRESHOLD) != (sentence.category != "none"):
                print(f"{sentence.language} {sentence.category:24} {CATEGORIES[top]:24} "
                      f"{float(row[top]):.2f}  {sentence.text}")  # fmt: skip
    torch.set_num_threads(1)
    short = [s.text for s in rows][:512]
    scored(encoder, head, short[:64])
    started = time.perf_counter()
    for start in range(0, len(short), 16):
        scored(encoder, head, short[start : start + 16])
    print(f"{len(short) / (time.perf_counter() - started):.0f} short messages a second on one core")


if __name__ == "__main__":
    main()
