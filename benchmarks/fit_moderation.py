"""Fits the logistic layer of a moderation head anew, over the tuned layers that stand in its file.

    python -m benchmarks.fit_moderation --version NAME [--head DIR] [--features FILE] [--to DIR]
                                        [--whole] [--without MANNER ...] [--averaged DIR]
                                        [--heavier MANNER=WEIGHT ...]

A minute or two, where `train_moderation.py` takes long: the layers read each sentence once
(`--features` keeps what they said), and only what is made of it is fitted, held near the layer
that was trained together with them (`prior.w`, `prior.b` in the file). It reads a layer further
down too, which knows of less and forgot less. It is for lines of manners that the layers did not
read, which weigh more than those that they read: where they read them all, there is nothing to
fit, and that is said. Before that, unless `--whole` is given, a quarter of the new manners' lines
is left out in turn and scored by a fit on the others. `--without` names manners that the fit does
not read. `--averaged` takes the layers halfway between those of the head and of another one that
began from the same encoder (Wortsman et al. 2022): what only one of the two read counts as new.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from benchmarks.moderation_calibrated import calibrate
from benchmarks.moderation_data import (
    NUMBERED,
    PACKAGE,
    TRAINING,
    Sentence,
    computed_in,
    labels,
    plain_sentences,
    training_sentences,
)
from benchmarks.moderation_figures import told
from benchmarks.train_moderation import KEPT_OUT, heavier_manner, weights_of
from safetensors.torch import load_file

from afina.data.moderation.categories import DEFAULT_THRESHOLD
from afina.data.moderation.words import signals
from afina.model.encoder import Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import (
    FACTS,
    FILE,
    Layered,
    ModerationHead,
    pack_head,
    packed_delta,
    with_delta,
)
from afina.settings import Settings

Tensors = Mapping[str, torch.Tensor]
Logistic = tuple[torch.Tensor, torch.Tensor]
"""Weight [13, width + lists] and bias [13]."""
HELD = 1e-5
"""How strongly the fit is held near the layer before it."""
BESIDE = (8,)
"""Layers (from 0) whose means are read beside the last one's."""
HELD_BESIDE = 1e-4
"""How strongly what is read of them is held near 0."""
NEW = 10.0
NEW_OF = {NUMBERED: 3.0}
"""What a line of a new manner weighs, where one that the layers read weighs 1; what it was written
out as shares it. Lines of business are many, and full of harmful ones: with 10 they cost what the
others taught."""
AT_ONCE = 1024
"""Sentences that the layers read together."""
QUARTERS = 4
"""Parts of the new manners' lines, by their groups, that are left out in turn."""
BEFORE = ("first", "plain")
"""Manners that the layers of a head were tuned on whose facts name none."""


def sentences(
    written_out: int, known: Sequence[str], without: Sequence[str] = ()
) -> list[Sentence]:
    """What is read: every line, of the manners that the layers were tuned on and of the others,
    but for those of the manners `without`."""
    every = [*training_sentences(written_out), *plain_sentences()]
    absent = set(without) - {s.manner for s in every}
    if absent:
        sys.exit(f"There are no lines of the manner {min(absent)}: see the names in {TRAINING}.")
    every = [s for s in every if s.manner not in without]
    if all(s.manner in known for s in every):
        sys.exit(
            "The layers of this head read every manner there is, and were trained together with "
            "its logistic layer: there is nothing to fit. Write lines of a new manner, or train "
            "anew with benchmarks.train_moderation."
        )
    return every


def features(encoder: Encoder, head: ModerationHead, rows: list[Sentence]) -> torch.Tensor:
    """What the logistic layer sees of each sentence [rows, width + lists + width * BESIDE]."""
    texts = [s.text for s in rows]
    ids = encoder.tokenizer.ids([head.prefix + text for text in texts])
    # sorted by length, so that what is read together is alike
    order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
    found: list[torch.Tensor] = []
    begun = time.monotonic()
    for start in range(0, len(order), AT_ONCE):
        part = order[start : start + AT_ONCE]
        found.append(head.features(encoder, [ids[i] for i in part], [texts[i] for i in part]))
        print(f"{start + len(part)} of {len(rows)} sentences read, "
              f"{time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip
    back = torch.tensor(order).argsort()
    return torch.cat(found)[back].clone()


def halfway(network: Layered, one: Tensors, other: Tensors) -> dict[str, torch.Tensor]:
    """The file of a head whose layers and logistic layer are the mean of two heads' (`prior` where
    there is one: what a fit added reads other layers than these). `network` is what both tuned."""
    both = zip(with_delta(network, one), with_delta(network, other), strict=True)
    layers = [{n: (a[n].float() + b[n].float()) / 2 for n in a} for a, b in both]
    weight, bias = ((a + b) / 2 for a, b in zip(prior_of(one), prior_of(other), strict=True))
    still = torch.stack([torch.ones(13), torch.zeros(13)])
    deltas = packed_delta(network, layers)
    return {**deltas, "out.w": weight, "out.b": bias, "calibration": still}


def read_by(facts: Mapping[str, Any]) -> list[str]:
    """The manners that a head's layers were tuned on; of a mean of two, those that both read."""
    return list(facts.get("read_by_both", facts.get("manners", BEFORE)))


def prior_of(tensors: Tensors) -> Logistic:
    """The logistic layer that was trained together with a head's layers."""
    return tensors.get("prior.w", tensors["out.w"]), tensors.get("prior.b", tensors["out.b"])


def line_weights(
    rows: list[Sentence], known: Sequence[str], heavier: Mapping[str, float] | None = None
) -> torch.Tensor:
    """What each sentence weighs in the fit."""
    shared = Counter((s.language, s.source) for s in rows)
    new = NEW_OF | dict(heavier or {})

    def weight(s: Sentence) -> float:
        if s.manner in known:
            return 1.0
        return new.get(s.manner, NEW) / shared[s.language, s.source]

    return torch.tensor([weight(s) for s in rows])


def fit(x: torch.Tensor, rows: list[Sentence], prior: Logistic, weights: torch.Tensor) -> Logistic:
    """The logistic layer for `rows`, of which each has its weight, held near `prior`, which sees
    width + lists alone. What comes after is fitted with a mean of 0 and one spread for all, and
    told in its own measure."""
    y, w = labels(rows)
    w = w * weights[:, None]
    known = prior[0].shape[1]
    first, beside = x[:, :known], x[:, known:]
    middle, width = beside.mean(0), known - len(signals(""))
    scale = first[:, :width].std(0).mean() / beside.std(0)
    seen = torch.cat([first, (beside - middle) * scale], 1)
    start = torch.cat([prior[0], torch.zeros(13, beside.shape[1])], 1)
    held = torch.full((seen.shape[1],), HELD)
    held[known:] = HELD_BESIDE
    change = torch.zeros_like(start, requires_grad=True)
    shift = torch.zeros_like(prior[1], requires_grad=True)
    tuned = torch.optim.LBFGS([change, shift], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        tuned.zero_grad()
        logits = seen @ (start + change).T + prior[1] + shift
        each = F.binary_cross_entropy_with_logits(logits, y * 0.97 + 0.005, reduction="none")
        total = (each * w).sum() / weights.sum() + (held * change**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    tuned.step(loss)  # type: ignore[no-untyped-call]
    weight, bias = (start + change).detach(), (prior[1] + shift).detach()
    weight[:, known:] *= scale
    return weight, bias - weight[:, known:] @ middle


def fitted(
    x: torch.Tensor,
    rows: list[Sentence],
    prior: Logistic,
    known: Sequence[str],
    without: torch.Tensor | None = None,
    heavier: Mapping[str, float] | None = None,
) -> tuple[Logistic, torch.Tensor]:
    """The layer and its calibration, with some rows left out."""
    here = torch.ones(len(rows), dtype=torch.bool) if without is None else ~without
    kept = torch.tensor([s.group < KEPT_OUT for s in rows])
    read = _chosen(rows, here & ~kept)
    layer = fit(x[here & ~kept], read, prior, line_weights(read, known, heavier))
    logits = x[here & kept] @ layer[0].T + layer[1]
    return layer, calibrate(logits, *labels(_chosen(rows, here & kept)))


def scores(x: torch.Tensor, layer: Logistic, calibration: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid((x @ layer[0].T + layer[1]) * calibration[0] + calibration[1])


def _chosen(rows: list[Sentence], which: torch.Tensor) -> list[Sentence]:
    return [row for row, taken in zip(rows, which.tolist(), strict=True) if taken]


def _leave_each_out(
    x: torch.Tensor,
    rows: list[Sentence],
    prior: Logistic,
    known: Sequence[str],
    heavier: Mapping[str, float],
) -> None:
    apart = torch.zeros(len(rows), 13)
    new = torch.tensor([s.manner not in known for s in rows])
    for quarter in range(QUARTERS):
        place = new & torch.tensor([s.group % QUARTERS == quarter for s in rows])
        print(f"fitting without quarter {quarter + 1} of {QUARTERS}", flush=True)
        layer, calibration = fitted(x, rows, prior, known, place, heavier)
        apart[place] = scores(x[place], layer, calibration)
    flagged = (apart[new].max(1).values >= DEFAULT_THRESHOLD).tolist()
    fine = [s.category == "none" for s in _chosen(rows, new)]
    wrongly = sum(f and c for f, c in zip(flagged, fine, strict=True))
    print(f"New manners, left out by quarters: {wrongly} of {sum(fine)} harmless lines flagged")
    if not all(fine):
        print(told(apart[new], _chosen(rows, new)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, default=PACKAGE)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--written-out", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], metavar="MANNER")
    parser.add_argument("--averaged", type=Path, metavar="DIR")
    parser.add_argument(
        "--heavier",
        type=heavier_manner,
        nargs="*",
        default=[],
        metavar="MANNER=WEIGHT",
        help="what a line of a new manner weighs",
    )
    parser.add_argument("--whole", action="store_true", help="leave nothing out first")
    parser.add_argument("--version", default="unnamed")
    parser.add_argument("--to", type=Path, default=PACKAGE)
    given = parser.parse_args()
    tensors = load_file(given.head / FILE)
    facts = json.loads((given.head / FACTS).read_text())
    known = read_by(facts)
    if given.averaged is not None:
        encoder = Encoder(ensure_encoder(Settings.load().encoders, print))
        tensors = halfway(encoder, tensors, load_file(given.averaged / FILE))
        other = json.loads((given.averaged / FACTS).read_text())
        either = sorted({*facts.get("manners", BEFORE), *other.get("manners", BEFORE)})
        known = [manner for manner in known if manner in read_by(other)]
        facts |= {"manners": either, "read_by_both": known, "averaged": other}
    rows = sentences(given.written_out, known, given.without)
    heavier = weights_of(given.heavier, {s.manner for s in rows} - set(known))
    if given.features is not None and given.features.exists():
        x = torch.load(given.features, weights_only=True)
        if len(x) != len(rows):
            sys.exit(f"{given.features} holds {len(x)} sentences and {len(rows)} are to be read: "
                     "remove it, or give the same --without and --written-out.")  # fmt: skip
    else:
        encoder = Encoder(ensure_encoder(Settings.load().encoders, print), computed_in())
        beside = {**tensors, "beside": torch.tensor(BESIDE)}
        x = features(encoder, ModerationHead(beside, "", encoder), rows)
        if given.features is not None:
            torch.save(x, given.features)
    prior = prior_of(tensors)
    if not given.whole:
        _leave_each_out(x, rows, prior, known, heavier)
    print(f"fitting on {len(rows)} sentences", flush=True)
    layer, calibration = fitted(x, rows, prior, known, heavier=heavier)
    kept = {n: t for n, t in tensors.items() if n.startswith("l")}
    kept |= {"prior.w": prior[0], "prior.b": prior[1], "beside": torch.tensor(BESIDE)}
    packed = pack_head(kept, layer, calibration)
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / FILE).write_bytes(packed)
    facts |= {
        "version": given.version,
        "fitted": sum(s.group >= KEPT_OUT and s.manner not in known for s in rows),
    }
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
