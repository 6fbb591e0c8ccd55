"""Trains the moderation head that afina ships: the encoder's last layers and a logistic layer.

    python -m benchmarks.train_moderation [--layers 6] [--epochs 4] [--seeds 1] [--seconds 200]
    python -m benchmarks.train_moderation --start HEAD.safetensors [--steps 90] [--rehearsed 20]

The head that ships took a second step: `fit_moderation.py`. `--start` goes on
from a head, and reads of the manners that it knows only so many lines in a hundred.

Deterministic for one machine and thread count: every step draws from a seed of its own. With
`--seconds` it stops after so long, keeps its state in `--state` and goes on when it is run again
(exit status 75 until it is done), so that a machine that others use too is not held for long. The
weights of several seeds are averaged (Wortsman et al. 2022). A tenth of the training lines, chosen
by hash, is kept out and calibrates the scores. `--without NAME` leaves a manner of the training
sentences out and scores it instead of writing a head: see `moderation_data.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

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
from benchmarks.moderation_varied import varied
from safetensors.torch import load_file
from torch import nn

from afina.data.moderation.categories import CATEGORIES
from afina.data.moderation.words import signals
from afina.domain.encoders import ENCODER_ID
from afina.model.encoder import PREFIX, Encoder, Layer
from afina.model.encoder_source import ensure_encoder
from afina.serving.moderation_head import FACTS, FILE, pack_head, packed_delta, with_delta
from afina.settings import Settings

MOST_TOKENS = 80
ROWS = 48
HIDDEN_DROPOUT = 0.05
TOKENS_HIDDEN = 0.05
"""Share of a text's tokens that the last layers do not see in a step."""
AVERAGED = 0.97
"""What is kept is the moving average of the weights, with this much of the one before a step."""
HARMLESS = 0.7
"""Share of texts that belong to no category, for which scores are calibrated."""
KEPT_OUT = 10
"""Lines whose group is below it calibrate the scores."""
MORE_TO_COME = 75


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
        self.out = nn.Linear(encoder.width + lists, len(CATEGORIES))
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

    def top(self) -> list[Layer]:
        """The tuned layers under the encoder's names."""
        return [{n.replace("_", "."): t.detach() for n, t in each.items()} for each in self.layers]


@torch.no_grad()
def below(encoder: Encoder, texts: list[str], layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into the last layers `[texts, tokens, width]`, and where it is real."""
    found = encoder.tokenizer.ids([PREFIX + text for text in texts])
    ids = [[0, *one[: MOST_TOKENS - 2], 2] for one in found]
    # Few shapes: the processor's kernels are made anew for each.
    length = -(-max(len(one) for one in ids) // 8) * 8
    batch = torch.full((len(ids), length), 1)
    for row, one in enumerate(ids):
        batch[row, : len(one)] = torch.tensor(one)
    there = batch != 1
    x = encoder.embedded(batch).view(-1, encoder.width)
    mask = torch.zeros(len(ids), 1, 1, length, dtype=encoder.dtype)
    mask.masked_fill_(~there[:, None, None], torch.finfo(encoder.dtype).min)
    for number in range(encoder.depth - layers):
        x = encoder.through(encoder.prepared_layer(number), x, mask)
    return x.view(len(ids), length, encoder.width), there


@dataclass
class State:
    """Where the training stands, between two runs."""

    seed: int = 0
    step: int = 0
    done: list[dict[str, torch.Tensor]] = field(default_factory=list)
    """The averaged weights of each seed that is through."""
    weights: dict[str, torch.Tensor] | None = None
    mean: dict[str, torch.Tensor] | None = None
    tuned: dict[str, Any] | None = None


class Training:
    """One seed's way through the sentences."""

    def __init__(self, given: argparse.Namespace, rows: list[Sentence], state: State) -> None:
        folder = ensure_encoder(Settings.load().encoders, print)
        self.low = Encoder(folder, torch.bfloat16)
        self.full = Encoder(folder, torch.float32)
        self.given, self.rows, self.state = given, rows, state
        self.y, self.w = labels(rows)
        counts = Counter((s.language, s.source) for s in rows)
        self.weight = torch.tensor([counts[s.language, s.source] ** -0.5 for s in rows])
        self.harmless = {
            name: [s.text for s in rows if s.category == "none" and s.language == name]
            for name in {s.language for s in rows}
        }
        self.steps = given.steps or given.epochs * (len(rows) // ROWS)
        self.lists = len(signals(""))
        self.losses: list[float] = []
        self.begun = time.monotonic()

    def run(self, until: float) -> bool:
        """Goes on until all seeds are through (True) or the time is over."""
        while self.state.seed < self.given.seeds:
            if not self._run_seed(until):
                return False
            assert self.state.mean is not None
            done = [*self.state.done, self.state.mean]
            self.state = State(seed=self.state.seed + 1, done=done)
        return True

    def _run_seed(self, until: float) -> bool:
        state = self.state
        torch.manual_seed(state.seed)
        net = Trained(self.full, self.given.layers, self.lists)
        if self.given.start is not None:
            begin_from(self.given.start, net)
        tuned = torch.optim.AdamW(
            [
                {"params": net.layers.parameters(), "lr": self.given.rate},
                {"params": net.out.parameters(), "lr": 10 * self.given.rate},
            ],
            weight_decay=0.01,
            fused=True,
        )
        if state.weights is None or state.tuned is None:
            state.mean = {n: t.detach().clone() for n, t in net.named_parameters()}
        else:
            net.load_state_dict(state.weights)
            tuned.load_state_dict(state.tuned)
        rates = [self.given.rate, 10 * self.given.rate]
        batches = self._batches(state.step // (len(self.rows) // ROWS))
        while state.step < self.steps:
            epoch, place = divmod(state.step, len(batches))
            if place == 0:
                batches = self._batches(epoch)
            warm = self.given.warm
            pace = (state.step + 1) / warm
            if state.step >= warm:
                pace = 1 - (state.step - warm) / (self.steps - warm)
            for group, rate in zip(tuned.param_groups, rates, strict=True):
                group["lr"] = rate * pace
            self._step(net, tuned, batches[place])
            state.step += 1
            if state.step % 20 == 0:
                print(f"seed {state.seed}, step {state.step} of {self.steps}: loss "
                      f"{sum(self.losses) / len(self.losses):.4f}, "
                      f"{time.monotonic() - self.begun:.0f} s", flush=True)  # fmt: skip
                self.losses.clear()
            if time.monotonic() > until:
                state.weights, state.tuned = net.state_dict(), tuned.state_dict()
                return state.step == self.steps
        return True

    def _batches(self, epoch: int) -> list[list[int]]:
        """Sentences of like length together, in another order each epoch."""
        chance = Random(1000 * self.state.seed + epoch)
        order = list(range(len(self.rows)))
        chance.shuffle(order)
        size = ROWS * 16
        order = [
            i
            for start in range(0, len(order), size)
            for i in sorted(order[start : start + size], key=lambda i: len(self.rows[i].text))
        ]
        made = [order[i : i + ROWS] for i in range(0, len(order) - ROWS + 1, ROWS)]
        chance.shuffle(made)
        return made

    def _step(self, net: Trained, tuned: torch.optim.Optimizer, part: list[int]) -> None:
        state = self.state
        torch.manual_seed(1_000_000 * (state.seed + 1) + state.step)
        chance = Random(1_000_000 * (state.seed + 1) + state.step)
        texts = []
        for i in part:
            one = self.rows[i]
            plain = chance.random() < 0.4
            texts.append(one.text if plain else varied(one, self.harmless[one.language], chance))
        x, real = below(self.low, texts, self.given.layers)
        words = torch.tensor([signals(text) for text in texts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = net(x, real, words).float()
        aim = self.y[part] * 0.97 + 0.005
        each = F.binary_cross_entropy_with_logits(logits, aim, reduction="none")
        loss = (each * self.w[part] * self.weight[part][:, None]).sum() / self.weight[part].sum()
        tuned.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        tuned.step()
        assert state.mean is not None
        with torch.no_grad():
            for name, tensor in net.named_parameters():
                state.mean[name].lerp_(tensor, 1 - AVERAGED)
        self.losses.append(loss.item())

    def result(self) -> Trained:
        """The network with the seeds' mean weights."""
        net = Trained(self.full, self.given.layers, self.lists)
        with torch.no_grad():
            for name, tensor in net.named_parameters():
                tensor.copy_(torch.stack([one[name] for one in self.state.done]).mean(0))
        return net.eval()


@torch.no_grad()
def begin_from(start: Path, net: Trained) -> None:
    """Takes over the layers and the logistic layer of an earlier head's file."""
    tensors = load_file(start)
    for layer, found in zip(net.layers, with_delta(net.encoder, tensors), strict=True):
        for name, tensor in layer.items():
            tensor.copy_(found[name.replace("_", ".")])
    net.out.weight.copy_(tensors["out.w"])
    net.out.bias.copy_(tensors["out.b"])


@torch.no_grad()
def raw_logits(
    encoder: Encoder, top: list[Layer], out: nn.Linear, rows: list[Sentence]
) -> torch.Tensor:
    """Logits [rows, 13] before calibration, as the engine computes them."""
    pooled = encoder.pool_ids(encoder.tokenizer.ids([PREFIX + s.text for s in rows]), top).pooled
    words = torch.tensor([signals(s.text) for s in rows])
    found: torch.Tensor = out(torch.cat([pooled, words], 1))
    return found.clone()


def calibrate(logits: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """One slope for all and a shift for each category (Platt 1999), both held near 1 and 0.

    Rows are weighed as if HARMLESS of all texts belonged to no category: among those that were
    written to be trained on they are half, and where texts are judged they are most.
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


def _is_used(sentence: Sentence, rehearsed: int) -> bool:
    """Of the manners that the head which is begun from knows, `rehearsed` in a hundred."""
    known = sentence.manner in ("first", "plain")
    return not known or hashlib.sha256(sentence.text.encode()).digest()[1] * 100 < rehearsed * 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--warm", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--rehearsed", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--written-out", type=int, default=5)
    parser.add_argument("--without", default="")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--state", type=Path, default=Path("moderation-training.pt"))
    parser.add_argument("--to", type=Path, default=PACKAGE)
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    every = [*training_sentences(given.written_out), *plain_sentences()]
    apart = [s for s in every if given.without and s.manner == given.without]
    used = [s for s in every if s not in set(apart)]
    rows = [s for s in used if s.group >= KEPT_OUT and _is_used(s, given.rehearsed)]
    kept = [s for s in used if s.group < KEPT_OUT]
    print(f"{len(rows)} sentences to train, {len(kept)} to calibrate, {len(apart)} left out",
          flush=True)  # fmt: skip
    state = State()
    if given.state.exists():
        state = State(**torch.load(given.state, weights_only=True))
    training = Training(given, rows, state)
    if not training.run(until):
        torch.save(vars(training.state), given.state)
        sys.exit(MORE_TO_COME)
    torch.save(vars(training.state), given.state)
    net = training.result()
    deltas = packed_delta(training.full, net.top())
    top = with_delta(training.full, deltas)
    calibration = calibrate(raw_logits(training.full, top, net.out, kept), *labels(kept))
    if apart:
        logits = raw_logits(training.full, top, net.out, apart) * calibration[0] + calibration[1]
        print(f"\nManner {given.without}, left out:\n{told(torch.sigmoid(logits), apart)}")
        return
    packed = pack_head(deltas, (net.out.weight, net.out.bias), calibration)
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / FILE).write_bytes(packed)
    facts = {
        "version": "afina-moderation-4",
        "encoder": ENCODER_ID,
        "layers": given.layers,
        "epochs": given.epochs,
        "seeds": given.seeds,
        "sentences": len(rows),
        "slope": round(float(calibration[0, 0]), 4),
    }
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
