"""Fits the logistic layer of a moderation head anew, over the tuned layers that stand in its file.

    python -m benchmarks.fit_moderation [--head DIR] [--features FILE] [--to DIR]

Seconds, where `train_moderation.py` takes long: the layers read each sentence once (`--features`
keeps what they said), and only what is made of it is fitted, held near the layer that was trained
together with them (`prior.w`, `prior.b` in the file). Before that each manner of the training
sentences is left out in turn and scored by a fit on the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from benchmarks.moderation_data import (
    PACKAGE,
    Sentence,
    labels,
    plain_sentences,
    training_sentences,
)
from benchmarks.moderation_figures import told
from benchmarks.train_moderation import KEPT_OUT, calibrate
from safetensors.torch import load_file

from afina.data.moderation.words import signals
from afina.model.encoder import Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import FACTS, FILE, ModerationHead, pack_head
from afina.settings import Settings

Logistic = tuple[torch.Tensor, torch.Tensor]
"""Weight [13, width + lists] and bias [13]."""
HELD = 1e-4
"""How strongly the fit is held near the layer before it."""
KNOWN = ("first", "plain")
"""Manners that the layers were tuned on: they only calibrate here."""
KNOWN_EVERY = 3
"""Of the known manners' lines that calibrate, one in so many is read."""


def sentences(written_out: int) -> list[Sentence]:
    """What is read: the manners that the layers were not tuned on, and some of the others."""
    every = [*training_sentences(written_out), *plain_sentences()]
    known = [s for s in every if s.manner in KNOWN and s.group < KEPT_OUT]
    return [s for s in every if s.manner not in KNOWN] + known[::KNOWN_EVERY]


def features(encoder: Encoder, head: ModerationHead, rows: list[Sentence]) -> torch.Tensor:
    """What the logistic layer sees of each sentence [rows, width + lists]."""
    texts = [s.text for s in rows]
    ids = encoder.tokenizer.ids([head.prefix + text for text in texts])
    pooled = encoder.pool_ids(ids, head.top).pooled
    return torch.cat([pooled, torch.tensor([signals(text) for text in texts])], 1).clone()


def fit(x: torch.Tensor, rows: list[Sentence], prior: Logistic) -> Logistic:
    """The logistic layer for `rows`, held near `prior`."""
    y, w = labels(rows)
    change = torch.zeros_like(prior[0], requires_grad=True)
    shift = torch.zeros_like(prior[1], requires_grad=True)
    tuned = torch.optim.LBFGS([change, shift], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        tuned.zero_grad()
        logits = x @ (prior[0] + change).T + prior[1] + shift
        each = F.binary_cross_entropy_with_logits(logits, y * 0.97 + 0.005, reduction="none")
        total = (each * w).sum() / len(y) + HELD * (change**2).sum()
        total.backward()
        return total

    tuned.step(loss)
    return (prior[0] + change).detach(), (prior[1] + shift).detach()


def fitted(
    x: torch.Tensor, rows: list[Sentence], prior: Logistic, without: str = ""
) -> tuple[Logistic, torch.Tensor]:
    """The layer and its calibration, with a manner left out."""
    here = torch.tensor([s.manner != without for s in rows])
    kept = torch.tensor([s.group < KEPT_OUT for s in rows])
    layer = fit(x[here & ~kept], _chosen(rows, here & ~kept), prior)
    logits = x[here & kept] @ layer[0].T + layer[1]
    return layer, calibrate(logits, *labels(_chosen(rows, here & kept)))


def scores(x: torch.Tensor, layer: Logistic, calibration: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid((x @ layer[0].T + layer[1]) * calibration[0] + calibration[1])


def _chosen(rows: list[Sentence], which: torch.Tensor) -> list[Sentence]:
    return [row for row, taken in zip(rows, which.tolist(), strict=True) if taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, default=PACKAGE)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--written-out", type=int, default=2)
    parser.add_argument("--to", type=Path, default=PACKAGE)
    given = parser.parse_args()
    rows = sentences(given.written_out)
    tensors = load_file(given.head / FILE)
    facts = json.loads((given.head / FACTS).read_text())
    if given.features is not None and given.features.exists():
        x = torch.load(given.features, weights_only=True)
    else:
        dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
        encoder = Encoder(ensure_encoder(Settings.load().encoders, print), dtype)
        x = features(encoder, ModerationHead(tensors, "", encoder), rows)
        if given.features is not None:
            torch.save(x, given.features)
    prior = (tensors.get("prior.w", tensors["out.w"]), tensors.get("prior.b", tensors["out.b"]))
    apart = torch.zeros(len(rows), 13)
    manners = sorted({s.manner for s in rows} - set(KNOWN))
    for manner in manners:
        layer, calibration = fitted(x, rows, prior, manner)
        place = torch.tensor([s.manner == manner for s in rows])
        apart[place] = scores(x[place], layer, calibration)
    whole = torch.tensor([s.manner in manners for s in rows])
    print(f"Each of {', '.join(manners)} left out:\n{told(apart[whole], _chosen(rows, whole))}\n")
    layer, calibration = fitted(x, rows, prior)
    deltas = {n: t for n, t in tensors.items() if n.startswith("l")}
    packed = pack_head({**deltas, "prior.w": prior[0], "prior.b": prior[1]}, layer, calibration)
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / FILE).write_bytes(packed)
    facts |= {
        "version": "afina-moderation-3",
        "fitted": sum(s.group >= KEPT_OUT for s in rows),
        "slope": round(float(calibration[0, 0]), 4),
    }
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
