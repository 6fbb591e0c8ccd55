"""How good and how fast the moderation model is, on sentences that it was never trained on.

    python -m benchmarks.moderation [--probe | --strangers] [--wrong] [--head DIR]
                                    [--more FILE.csv:COLUMN] [--business]

Prints precision, recall and F1 of each category, what is flagged at all, calibration, and short
messages a second on one core. `--probe` reads 126 other sentences, which nothing was chosen by,
`--strangers` 390 that were written without sight of any other; neither measures speed. `--wrong`
lists what it got wrong. `--more` tells how many of a file's harmless texts are flagged,
`--business` how many of a firm's ordinary questions and rows, with numbers drawn anew, and which.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path

import torch
from benchmarks.moderation_business import NAMES, business
from benchmarks.moderation_data import (
    PROBE,
    STRANGERS,
    TEST,
    Sentence,
    computed_in,
    sentences_of_the_test,
)
from benchmarks.moderation_figures import interval, told
from safetensors.torch import load_file

from afina.data.moderation.categories import CATEGORIES, DEFAULT_THRESHOLD
from afina.data.moderation.pieces import distinct, joined, pieces_of
from afina.model.encoder import Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import FACTS, FILE, ModerationHead
from afina.settings import Settings


def scored(encoder: Encoder, head: ModerationHead, texts: list[str]) -> torch.Tensor:
    pieces, where = distinct([pieces_of(text) for text in texts])
    ids = encoder.tokenizer.ids([head.prefix + piece for piece in pieces])
    return torch.tensor(joined(where, head.scores(encoder, ids, pieces)))


def loaded(encoder: Encoder, folder: Path | None) -> ModerationHead:
    if folder is None:
        return ModerationHead.load(encoder)
    version = json.loads((folder / FACTS).read_text())["version"]
    return ModerationHead(load_file(folder / FILE), version, encoder)


def _tell_business(encoder: Encoder, head: ModerationHead, part: str, rows: list[Sentence]) -> None:
    """What is flagged of the harmless and of the harmful ones, and the lines behind it."""
    found = scored(encoder, head, [s.text for s in rows])
    highest, which = found.max(1)
    flagged = (highest >= DEFAULT_THRESHOLD).tolist()
    fine = [s.category == "none" for s in rows]
    wrong = [i for i, said in enumerate(flagged) if said and fine[i]]
    right = sum(said and not ok for said, ok in zip(flagged, fine, strict=True))
    print(f"{part}: {len(wrong)} of {sum(fine)} harmless texts are flagged "
          f"({interval(len(wrong), sum(fine))})", flush=True)  # fmt: skip
    if not all(fine):
        bad = len(rows) - sum(fine)
        print(f"{part}: {right} of {bad} harmful texts are found ({interval(right, bad)})")
    lines = Counter((rows[i].source, CATEGORIES[int(which[i])]) for i in wrong)
    for (source, category), times in lines.most_common(12):
        print(f"  {times:4} {category:12} {source}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sets = parser.add_mutually_exclusive_group()
    sets.add_argument("--probe", action="store_const", dest="tested", const=PROBE)
    sets.add_argument("--strangers", action="store_const", dest="tested", const=STRANGERS)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--head", type=Path)
    parser.add_argument("--more", default="")
    parser.add_argument("--business", action="store_true")
    given = parser.parse_args()
    encoder = Encoder(ensure_encoder(Settings.load().encoders, print), computed_in())
    head = loaded(encoder, given.head)
    if given.more:
        name, _, column = given.more.partition(":")
        with Path(name).open(encoding="cp1252", newline="") as file:
            texts = [row[column] for row in csv.DictReader(file)]
        flagged = (scored(encoder, head, texts).max(1).values >= DEFAULT_THRESHOLD).sum()
        print(f"{int(flagged)} of {len(texts)} texts of {name} are flagged")
        return
    if given.business:
        for part in NAMES:
            _tell_business(encoder, head, part, business(part))
        return
    rows = sentences_of_the_test(given.tested or TEST)
    scores = scored(encoder, head, [s.text for s in rows])
    print(f"{len(rows)} sentences, {head.version}, {encoder.dtype}\n\n{told(scores, rows)}")
    if given.wrong:
        for sentence, row in zip(rows, scores, strict=True):
            top = int(row.argmax())
            if (float(row[top]) >= DEFAULT_THRESHOLD) != (sentence.category != "none"):
                print(f"{sentence.language} {sentence.category:24} {CATEGORIES[top]:24} "
                      f"{float(row[top]):.2f}  {sentence.text}")  # fmt: skip
    if given.tested is not None:
        return
    torch.set_num_threads(1)
    short = [s.text for s in rows][:512]
    for at_once in (16, 256):
        scored(encoder, head, short[:64])
        started, used = time.perf_counter(), time.process_time()
        for start in range(0, len(short), at_once):
            scored(encoder, head, short[start : start + at_once])
        took, used = time.perf_counter() - started, time.process_time() - used
        print(f"{len(short) / took:.0f} short messages a second on one core, {at_once} at a time "
              f"({len(short) / used:.0f} a second of the processor's own time)")  # fmt: skip


if __name__ == "__main__":
    main()
