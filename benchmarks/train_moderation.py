"""Trains the moderation head that afina ships: the encoder's last layers and a logistic layer.

    python -m benchmarks.train_moderation [--layers 6] [--epochs 4] [--seeds 1] [--seconds 200]
    python -m benchmarks.train_moderation --start HEAD.safetensors --layers 3 [--hardest 45]

`--start` goes on from a head: the last `--layers` of its layers are trained, those below stay, and
of the manners that it knows best only `--rehearsed` lines in a hundred are read. With `--hardest`
all lines are scored by that head first, and what is read is the share that it knows least and some
of the rest. `--joined` averages what other runs (their `--state`, from another `--first-seed`) came
to with this one.

Deterministic for one machine and thread count: every step draws from a seed of its own. With
`--seconds` it stops after so long, keeps its state in `--state` and goes on when it is run again
(exit status 75 until it is done), so that a machine that others use too is not held for long. The
weights of several seeds are averaged (Wortsman et al. 2022). A tenth of the training lines, chosen
by hash, is kept out and calibrates the scores. `--without NAME` leaves a manner of the training
sentences out and scores it instead of writing a head: see `moderation_data.py`. The head's facts
say which manners its layers read, which is what `fit_moderation.py` goes by. `--version` is the
name under which answers say who judged: other weights want another name, here and in
`afina.service.moderation`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from benchmarks.moderation_calibrated import calibrate, raw_logits
from benchmarks.moderation_data import (
    NUMBERED,
    PACKAGE,
    Sentence,
    computed_in,
    labels,
    plain_sentences,
    redrawn,
    training_sentences,
)
from benchmarks.moderation_figures import told
from benchmarks.moderation_varied import piece_of, varied
from safetensors.torch import load_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from afina.data.moderation.categories import CATEGORIES
from afina.data.moderation.words import signals
from afina.domain.encoders import ENCODER_ID
from afina.model.encoder import PREFIX, Encoder, Layer, prepared
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
KEPT_OUT = 10
"""Lines whose group is below it calibrate the scores."""
SOME = 5
"""Of the sentences that are not among the hardest, one in so many is read all the same."""
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
        for layer in self.each():
            flat = F.dropout(flat, HIDDEN_DROPOUT, self.training)
            flat = self.encoder.through(
                {n.replace("_", "."): t for n, t in layer.items()}, flat, mask
            )
        hidden = flat.view(rows, length, width) * real[..., None]
        pooled = F.dropout(hidden.sum(1) / real.sum(1, keepdim=True), 0.1, self.training)
        logits: torch.Tensor = self.out(torch.cat([pooled, words], 1))
        return logits

    def each(self) -> list[nn.ParameterDict]:
        """The tuned layers, lowest first; names have `_` for `.`."""
        return [layer for layer in self.layers if isinstance(layer, nn.ParameterDict)]

    def top(self) -> list[Layer]:
        """The tuned layers under the encoder's names."""
        return [
            {n.replace("_", "."): t.detach() for n, t in layer.items()} for layer in self.each()
        ]


def lowered() -> torch.autocast:
    """Products in bf16 where the processor multiplies it."""
    low = computed_in() is torch.bfloat16
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)


@torch.no_grad()
def below(
    encoder: Encoder, texts: list[str], layers: int, frozen: Sequence[Layer] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into the last layers `[texts, tokens, width]`, and where it is real. `frozen`
    stand in for as many layers right below them."""
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
    lowest = encoder.depth - layers - len(frozen)
    for layer in [*(encoder.prepared_layer(number) for number in range(lowest)), *frozen]:
        x = encoder.through(layer, x, mask)
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
    chosen: list[int] | None = None
    """The sentences that are read, where `--hardest` leaves some out."""


class Training:
    """One seed's way through the sentences."""

    def __init__(self, given: argparse.Namespace, rows: list[Sentence], state: State) -> None:
        folder = ensure_encoder(Settings.load().encoders, print)
        self.low = Encoder(folder, computed_in())
        self.full = Encoder(folder, torch.float32)
        self.given, self.rows, self.state = given, rows, state
        self.harmless = {
            name: [s.text for s in rows if s.category == "none" and s.language == name]
            for name in {s.language for s in rows}
        }
        self.frozen = frozen_layers(given.start, self.low, given.layers)
        self.kept: dict[tuple[int, int], torch.Tensor] = {}
        self._weigh()
        if given.hardest < 100 and state.seed < given.first_seed + given.seeds:
            self._choose()
        self.steps = given.steps or given.epochs * (len(self.rows) // ROWS)
        self.lists = len(signals(""))
        self.losses: list[float] = []
        self.begun = time.monotonic()

    def _weigh(self) -> None:
        self.y, self.w = labels(self.rows)
        counts = Counter((s.language, s.source) for s in self.rows)
        heavier: dict[str, float] = self.given.heavier
        self.weight = torch.tensor(
            [heavier.get(s.manner, 1.0) * counts[s.language, s.source] ** -0.5 for s in self.rows]
        )

    def _choose(self) -> None:
        """Of all sentences, those that the head which is begun from knows least, and some."""
        if self.state.chosen is None:
            hardest = self._losses().argsort(descending=True).tolist()
            count = len(hardest) * self.given.hardest // 100
            self.state.chosen = sorted(hardest[:count] + hardest[count::SOME])
        chosen = self.state.chosen
        self.kept = {
            (new, way): tensor
            for new, old in enumerate(chosen)
            for way in range(1000 * self.state.seed, 1000 * self.state.seed + self.given.ways)
            if (tensor := self.kept.get((old, way))) is not None
        }
        self.rows = [self.rows[i] for i in chosen]
        self._weigh()
        print(f"{len(chosen)} sentences are read", flush=True)

    @torch.no_grad()
    def _losses(self) -> torch.Tensor:
        net = Trained(self.full, self.given.layers, len(signals("")))
        begin_from(self.given.start, net)
        net.eval()
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i].text))
        found = torch.zeros(len(order))
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            texts, x, real = self._read(part, 0)
            words = torch.tensor([signals(text) for text in texts])
            with lowered():
                logits = net(x, real, words).float()
            each = F.binary_cross_entropy_with_logits(logits, self.y[part], reduction="none")
            found[part] = (each * self.w[part]).sum(1)
        return found

    def run(self, until: float) -> bool:
        """Goes on until all seeds are through (True) or the time is over."""
        while self.state.seed < self.given.first_seed + self.given.seeds:
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
                return bool(state.step == self.steps)
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
        texts, x, real = self._read(part, state.step // (len(self.rows) // ROWS))
        words = torch.tensor([signals(text) for text in texts])
        # the flash kernel's way back takes half of a step where texts are as short as these
        with sdpa_kernel(SDPBackend.MATH), lowered():
            logits = net(x, real, words).float()
        aim = self.y[part] * 0.97 + 0.005
        each = F.binary_cross_entropy_with_logits(logits, aim, reduction="none")
        loss = (each * self.w[part] * self.weight[part][:, None]).sum() / self.weight[part].sum()
        tuned.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        tuned.step()
        assert state.mean is not None
        with torch.no_grad():
            for name, tensor in net.named_parameters():
                state.mean[name].lerp_(tensor, 1 - AVERAGED)
        self.losses.append(loss.item())

    def _read(self, part: list[int], epoch: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """Texts, what goes into the trained layers, and where it is real. A sentence is put down
        in `--ways` ways, each of which the layers below read once."""
        way = 1000 * self.state.seed + epoch % self.given.ways
        texts = [self._put_down(i, way) for i in part]
        new = [place for place, i in enumerate(part) if (i, way) not in self.kept]
        if new:
            chosen = [texts[place] for place in new]
            found, there = below(self.low, chosen, self.given.layers, self.frozen)
            for place, one, tokens in zip(
                new, found.bfloat16(), there.sum(1).tolist(), strict=True
            ):
                self.kept[part[place], way] = one[:tokens].clone()
        rows = [self.kept[i, way] for i in part]
        length = -(-max(len(one) for one in rows) // 8) * 8
        x = torch.zeros(len(rows), length, self.low.width)
        real = torch.zeros(len(rows), length, dtype=torch.bool)
        for place, one in enumerate(rows):
            x[place, : len(one)] = one
            real[place, : len(one)] = True
        return texts, x, real

    def _put_down(self, i: int, way: int) -> str:
        chance = Random(1_000_000 * way + i)
        one = piece_of(self.rows[i], chance)
        if one.manner == NUMBERED:
            one = replace(one, text=redrawn(one.text, chance))
        if chance.random() < 0.4:
            return one.text
        return varied(one, self.harmless[one.language], chance)

    def result(self) -> Trained:
        """The network with the seeds' mean weights."""
        net = Trained(self.full, self.given.layers, self.lists)
        with torch.no_grad():
            for name, tensor in net.named_parameters():
                tensor.copy_(torch.stack([one[name] for one in self.state.done]).mean(0))
        return net.eval()


def frozen_layers(start: Path | None, encoder: Encoder, trained: int) -> list[Layer]:
    """The tuned layers of an earlier head's file below those that are trained now."""
    if start is None:
        return []
    return [prepared(layer) for layer in with_delta(encoder, load_file(start))[:-trained]]


def whole_delta(start: Path | None, encoder: Encoder, top: list[Layer]) -> dict[str, torch.Tensor]:
    """What a head's file says of all its layers: those of `start` below `top` stay as they are."""
    new = packed_delta(encoder, top)
    if start is None:
        return new
    old = {n: t for n, t in load_file(start).items() if n.startswith("l")}
    below_top = len({n.split(".")[0] for n in old}) - len(top)
    made = {n: t for n, t in old.items() if int(n.split(".")[0][1:]) < below_top}
    for name, tensor in new.items():
        number, _, rest = name.partition(".")
        made[f"l{int(number[1:]) + below_top}.{rest}"] = tensor
    return made


@torch.no_grad()
def begin_from(start: Path, net: Trained) -> None:
    """Takes over the layers and the logistic layer of an earlier head's file."""
    tensors = load_file(start)
    found_layers = with_delta(net.encoder, tensors)[-len(net.layers) :]
    for layer, found in zip(net.each(), found_layers, strict=True):
        for name, tensor in layer.items():
            tensor.copy_(found[name.replace("_", ".")])
    net.out.weight.copy_(tensors.get("prior.w", tensors["out.w"]))
    net.out.bias.copy_(tensors.get("prior.b", tensors["out.b"]))


def _is_used(sentence: Sentence, rehearsed: int) -> bool:
    """Of the manners that the head which is begun from knows, `rehearsed` in a hundred."""
    known = sentence.manner in ("first", "plain")
    return not known or hashlib.sha256(sentence.text.encode()).digest()[1] * 100 < rehearsed * 256


def heavier_manner(text: str) -> tuple[str, float]:
    """`MANNER=WEIGHT`, as an argument of the command line."""
    manner, _, weight = text.partition("=")
    return manner, float(weight)


def weights_of(heavier: Sequence[tuple[str, float]], manners: set[str]) -> dict[str, float]:
    """What lines of some `manners` weigh. Exits at a name that none of them has."""
    absent = {manner for manner, _ in heavier} - manners
    if absent:
        sys.exit(f"--heavier {min(absent)}: no line that is weighed has this manner. There are "
                 f"{', '.join(sorted(manners))}.")  # fmt: skip
    return dict(heavier)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--warm", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hardest", type=int, default=100)
    parser.add_argument("--ways", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--joined", type=Path, nargs="*", default=[])
    parser.add_argument("--start", type=Path)
    parser.add_argument("--rehearsed", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--written-out", type=int, default=5)
    parser.add_argument("--without", default="")
    parser.add_argument(
        "--heavier",
        type=heavier_manner,
        nargs="*",
        default=[],
        metavar="MANNER=WEIGHT",
        help="what a line of it weighs; else 1",
    )
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--state", type=Path, default=Path("moderation-training.pt"))
    parser.add_argument("--version", default="unnamed")
    parser.add_argument("--to", type=Path, default=PACKAGE)
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    every = [*training_sentences(given.written_out), *plain_sentences()]
    apart = [s for s in every if given.without and s.manner == given.without]
    used = [s for s in every if s not in set(apart)]
    rows = [s for s in used if s.group >= KEPT_OUT and _is_used(s, given.rehearsed)]
    kept = [s for s in used if s.group < KEPT_OUT]
    given.heavier = weights_of(given.heavier, {s.manner for s in rows})
    print(f"{len(rows)} sentences to train, {len(kept)} to calibrate, {len(apart)} left out",
          flush=True)  # fmt: skip
    state = State(seed=given.first_seed)
    if given.state.exists():
        state = State(**torch.load(given.state, weights_only=True))
    training = Training(given, rows, state)
    if not training.run(until):
        torch.save(vars(training.state), given.state)
        sys.exit(MORE_TO_COME)
    torch.save(vars(training.state), given.state)
    for other in given.joined:
        training.state.done += torch.load(other, weights_only=True)["done"]
    net = training.result()
    deltas = whole_delta(given.start, training.full, net.top())
    top = [prepared(layer) for layer in with_delta(training.low, deltas)]
    calibration = calibrate(raw_logits(training.low, top, net.out, kept), *labels(kept))
    if apart:
        logits = raw_logits(training.low, top, net.out, apart) * calibration[0] + calibration[1]
        print(f"\nManner {given.without}, left out:\n{told(torch.sigmoid(logits), apart)}")
        return
    packed = pack_head(deltas, (net.out.weight, net.out.bias), calibration)
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / FILE).write_bytes(packed)
    facts = {
        "version": given.version,
        "encoder": ENCODER_ID,
        "layers": len({name.split(".")[0] for name in deltas}),
        "steps": training.steps,
        "seeds": len(training.state.done),
        "sentences": len(training.rows),
        "manners": sorted({s.manner for s in training.rows}),
        "slope": round(float(calibration[0, 0]), 4),
    }
    (given.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{given.to / FILE}: {len(packed) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
