"""Fits the last layer of the moderation head anew, with ordinary texts among the sentences.

    python benchmarks/refit_moderation.py --head FOLDER [--to FOLDER]

The tuned layers stay. Sentences that were written for the categories leave out most of what people
write: product pages, help, plays, answers of one word. `plain.txt` holds such texts in the three
languages; a logistic layer is fitted on the pooled vectors of both (Kirichenko et al. 2023,
arXiv:2204.02937), and calibrated on the tenth that is kept out by hash.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from safetensors.torch import load, save

from afina.data.moderation.words import signals
from afina.model.encoder import Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import FACTS, FILE, ModerationHead
from afina.settings import Settings
from moderation_data import TRAINING, labels, plain_sentences, training_sentences
from train_moderation import calibrate

DECAY = 0.002
"""Of the change from the weights that were trained with the layers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=TRAINING)
    given = parser.parse_args()
    torch.manual_seed(0)
    encoder = Encoder(ensure_encoder(Settings.load().encoders, print), torch.bfloat16)
    tensors = load((given.head / FILE).read_bytes())
    head = ModerationHead(tensors, "", encoder.dtype)
    rows = [*training_sentences(5), *plain_sentences()]
    texts = [s.text for s in rows]
    ids = encoder.tokenizer.ids([head.prefix + text for text in texts])
    with torch.inference_mode():
        pooled = encoder.pool_ids(ids, head.top).pooled
    x = torch.cat([pooled, torch.tensor([signals(text) for text in texts])], 1).clone()
    y, w = labels(rows)
    kept = torch.tensor([s.group < 10 for s in rows])
    before = (tensors["out.w"].float(), tensors["out.b"].float())
    weight, bias = (tensor.clone().requires_grad_() for tensor in before)
    tuned = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        tuned.zero_grad()
        logits = x[~kept] @ weight.T + bias
        each = F.binary_cross_entropy_with_logits(logits, y[~kept] * 0.97 + 0.005, reduction="none")
        total = (each * w[~kept]).sum(1).mean() + DECAY * ((weight - before[0]) ** 2).sum()
        total.backward()
        return total

    tuned.step(loss)
    with torch.no_grad():
        logits = (x[kept] @ weight.T + bias).clone()
    tensors |= {"out.w": weight.detach(), "out.b": bias.detach()}
    tensors["calibration"] = calibrate(logits, y[kept], w[kept])
    packed = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    (given.to / FILE).write_bytes(packed)
    facts = json.loads((given.head / FACTS).read_text())
    facts |= {"version": "afina-moderation-2", "sentences": int((~kept).sum())}
    facts["slope"] = round(float(tensors["calibration"][0, 0]), 4)
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(rows)} texts, {int(kept.sum())} of them to calibrate")


if __name__ == "__main__":
    main()
