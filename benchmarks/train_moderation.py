"""Trains the moderation head that afina ships: the encoder's last layers and a logistic layer.

    python benchmarks/train_moderation.py [--layers 6] [--epochs 6]

Deterministic for one machine and thread count. A tenth of the training lines, chosen by hash, is
kept out and calibrates the scores. The result is written beside `afina.data.moderation`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from afina.data.moderation.words import signals
from afina.domain.encoders import ENCODER_ID
from afina.model.encoder import PREFIX, Encoder
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import FACTS, FILE, pack_head
from afina.settings import Settings
from moderation_data import TRAINING, Sentence, labels, plain_sentences, training_sentences

MOST_TOKENS = 64
ROWS = 32
VERSIONS = 4
"""How often each sentence is put down differently."""
HIDDEN_DROPOUT = 0.05
TOKENS_HIDDEN = 0.05
"""Share of a text's tokens that the last layers do not see in a step."""
AVERAGED = 0.99
"""What is kept is the moving average of the weights, with this much of the one before a step."""
HARMLESS = 0.9
"""Share of texts that belong to no category, for which scores are calibrated."""
OPENINGS = {
    "en": ("honestly ", "lol ", "Hey, ", "ok so ", "I mean, ", "By the way: ", "please ", "well, ",
           "For my novel: ", "Just curious, ", "My teacher wants to know: ", "Hypothetically, ",
           "quick question: ", "As a joke: ", "Imagine this: ", "No judgement please: "),
    "es": ("en serio, ", "jaja ", "Oye, ", "a ver, ", "O sea, ", "Por cierto: ", "por favor ",
           "Para mi novela: ", "Por curiosidad, ", "Mi profe quiere saber: ", "una pregunta: ",
           "En broma: ", "Imagina esto: ", "No me juzgues: "),
    "pt": ("sério, ", "kkk ", "Olha, ", "então, ", "Quer dizer, ", "Aliás: ", "por favor ",
           "Para o meu romance: ", "Por curiosidade, ", "uma pergunta: ", "De brincadeira: ",
           "Imagina isto: ", "Não me julgues: "),
}  # fmt: skip
CLOSINGS = {
    "en": (" thanks", " asap", " lol", " ...", " what do you say?", " please help", " :)", "!!"),
    "es": (" gracias", " jaja", " ...", " ¿qué dices?", " ayúdame porfa", " :)", "!!", " ya"),
    "pt": (" obrigado", " kkk", " ...", " o que dizes?", " me ajuda", " :)", "!!", " já"),
}


class Trained(nn.Module):
    """The last layers of an encoder and the logistic layer, in float32."""

    def __init__(self, encoder: Encoder, count: int, lists: int) -> None:
        super().__init__()
        self.encoder = encoder
        first = encoder.depth - count
        self.layers = nn.ModuleList(
            nn.ParameterDict(
                {n.replace(".", "_"): nn.Parameter(t.clone()) for n, t in encoder.layer(i).items()}
            )
            for i in range(first, encoder.depth)
        )
        self.out = nn.Linear(encoder.width + lists, 13)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -2.0)

    def forward(self, x: torch.Tensor, real: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        if self.training:
            seen = real & (torch.rand(real.shape) >= TOKENS_HIDDEN)
            seen[:, 0] = True
            real = seen
        mask = torch.zeros(rows, 1, 1, length).masked_fill(~real[:, None, None], -1e9)
        flat = x.reshape(rows * length, width)
        for layer in self.layers:
            flat = F.dropout(flat, HIDDEN_DROPOUT, self.training)
            flat = self.encoder.through(
                {n.replace("_", "."): t for n, t in layer.items()}, flat, mask
            )
        hidden = flat.view(rows, length, width) * real[..., None]
        pooled = F.dropout(hidden.sum(1) / real.sum(1, keepdim=True), 0.1, self.training)
        return self.out(torch.cat([pooled, words], 1))


@torch.no_grad()
def below(encoder: Encoder, texts: list[str], layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into the last layers `[texts, tokens, width]`, and where it is real."""
    found = encoder.tokenizer.ids([PREFIX + text for text in texts])
    ids = [[0, *one[: MOST_TOKENS - 2], 2] for one in found]
    longest = max(len(one) for one in ids)
    out = torch.zeros(len(ids), longest, encoder.width)
    real = torch.zeros(len(ids), longest, dtype=torch.bool)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        length = max(len(ids[i]) for i in part)
        batch = torch.full((len(part), length), 1)
        for row, i in enumerate(part):
            batch[row, : len(ids[i])] = torch.tensor(ids[i])
        there = batch != 1
        x = encoder.embedded(batch).view(-1, encoder.width)
        mask = torch.zeros(len(part), 1, 1, length, dtype=encoder.dtype)
        mask.masked_fill_(~there[:, None, None], torch.finfo(encoder.dtype).min)
        for number in range(encoder.depth - layers):
            x = encoder.through(encoder.layer(number), x, mask)
        out[part, :length] = x.view(len(part), length, encoder.width)
        real[part, :length] = there
    return out.clone(), real.clone()


def varied(sentence: Sentence, chance: random.Random) -> str:
    text = sentence.text
    if chance.random() < 0.35:
        text = text.lower()
    if chance.random() < 0.3:
        text = text.rstrip(".!?")
    if chance.random() < 0.35:
        text = chance.choice(OPENINGS[sentence.language]) + text[0].lower() + text[1:]
    if chance.random() < 0.15:
        text = text.rstrip(".") + chance.choice(CLOSINGS[sentence.language])
    if chance.random() < 0.1 and len(text) > 20:
        place = chance.randrange(1, len(text) - 1)
        text = text[:place] + chance.choice((text[place + 1], "", " ")) + text[place + 1 :]
    return text


def calibrate(logits: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """One slope for all and a shift for each category (Platt 1999), both held near 1 and 0.

    Rows are weighed as if HARMLESS of all texts belonged to no category: among those that were
    written to be trained on they are a quarter, and where texts are judged they are most.
    """
    fine = (y.sum(1) == 0).float()
    share = fine * HARMLESS / fine.mean() + (1 - fine) * (1 - HARMLESS) / (1 - fine.mean())
    w = w * share[:, None]
    slope = torch.zeros(1, requires_grad=True)
    shift = torch.zeros(13, requires_grad=True)
    tuned = torch.optim.LBFGS([slope, shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        tuned.zero_grad()
        each = F.binary_cross_entropy_with_logits(logits * slope.exp() + shift, y, reduction="none")
        total = (each * w).sum() / len(y) + 0.02 * (shift**2).sum()
        total.backward()
        return total

    tuned.step(loss)
    return torch.stack([slope.detach().exp().expand(13), shift.detach()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--written-out", type=int, default=5)
    parser.add_argument("--to", type=Path, default=TRAINING)
    given = parser.parse_args()
    torch.manual_seed(0)
    chance = random.Random(0)
    folder = ensure_encoder(Settings.load().encoders, print)
    low, full = Encoder(folder, torch.bfloat16), Encoder(folder, torch.float32)
    every = [*training_sentences(given.written_out), *plain_sentences()]
    rows = [s for s in every if s.group >= 10]
    kept = [s for s in every if s.group < 10]
    started = time.time()
    texts = [[varied(s, chance) if n else s.text for s in rows] for n in range(VERSIONS)]
    inputs = [below(low, some, given.layers) for some in texts]
    words = [torch.tensor([signals(text) for text in some]) for some in texts]
    print(f"{len(rows)} sentences to train, {len(kept)} to calibrate; "
          f"{time.time() - started:.0f} s below", flush=True)  # fmt: skip
    y, w = labels(rows)
    counts = Counter((s.language, s.source) for s in rows)
    weight = torch.tensor([counts[s.language, s.source] ** -0.5 for s in rows])
    net = Trained(full, given.layers, words[0].shape[1])
    steps = given.epochs * (len(rows) // ROWS)
    tuned = torch.optim.AdamW(
        [
            {"params": net.layers.parameters(), "lr": given.rate},
            {"params": net.out.parameters(), "lr": 3e-3},
        ],
        weight_decay=0.01,
    )
    pace = torch.optim.lr_scheduler.LambdaLR(
        tuned, lambda i: min(1.0, (i + 1) / (0.1 * steps)) * max(0.0, 1 - i / steps)
    )
    mean = {n: t.detach().clone() for n, t in net.named_parameters()}
    for epoch in range(given.epochs):
        order = torch.randperm(len(rows)).tolist()
        size = ROWS * 16
        order = [
            i
            for start in range(0, len(order), size)
            for i in sorted(order[start : start + size], key=lambda i: len(rows[i].text))
        ]
        batches = [order[i : i + ROWS] for i in range(0, len(order) - ROWS + 1, ROWS)]
        chance.shuffle(batches)
        total = 0.0
        for part in batches:
            version = chance.randrange(VERSIONS)
            x, real = inputs[version][0][part], inputs[version][1][part]
            length = int(real.sum(1).max())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = net(x[:, :length], real[:, :length], words[version][part]).float()
            each = F.binary_cross_entropy_with_logits(
                logits, y[part] * 0.97 + 0.005, reduction="none"
            )
            loss = (each * w[part] * weight[part][:, None]).sum() / weight[part].sum()
            tuned.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            tuned.step()
            pace.step()
            with torch.no_grad():
                for name, tensor in net.named_parameters():
                    mean[name].lerp_(tensor, 1 - AVERAGED)
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.4f}, "
              f"{time.time() - started:.0f} s", flush=True)  # fmt: skip
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            tensor.copy_(mean[name])
    net.eval()
    x, real = below(low, [s.text for s in kept], given.layers)
    held = torch.tensor([signals(s.text) for s in kept])
    with torch.no_grad():
        logits = torch.cat(
            [
                net(x[i : i + 64], real[i : i + 64], held[i : i + 64])
                for i in range(0, len(kept), 64)
            ]
        ).clone()
    calibration = calibrate(logits, *labels(kept))
    layers = [{n.replace("_", "."): t for n, t in layer.items()} for layer in net.layers]
    packed = pack_head(layers, (net.out.weight, net.out.bias), calibration)
    (given.to / FILE).write_bytes(packed)
    facts = {
        "version": "afina-moderation-2",
        "encoder": ENCODER_ID,
        "layers": given.layers,
        "epochs": given.epochs,
        "sentences": len(rows),
        "slope": round(float(calibration[0, 0]), 4),
    }
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
