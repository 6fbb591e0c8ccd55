"""From logits to tokens. The same row, seed, choice and position always give the same token.

A token is the argmax of logits / T plus Gumbel noise, drawn from a counter, so neither company nor
preemption nor a restart can change an answer. Drawing noise for a whole vocabulary would cost more
than the network on a small machine; so the argmax is taken in two stages that together have the
same distribution: first among blocks of the vocabulary, by the logarithm of their mass, then among
the tokens of the winning block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from afina.model.kernels import sampling as kernels
from afina.model.kernels.argmax import argmax
from afina.serving.answers import Candidates
from afina.serving.penalties import Reshaping

_BLOCK: Final = 256
_CANDIDATES: Final = 128
_MASK64: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Choosing:
    """How one row's next token is chosen. `forced` overrides everything."""

    seed: int
    choice: int
    position: int
    temperature: float = 1.0
    top_p: float = 1.0
    forced: int | None = None
    reshaping: Reshaping | None = None
    """Biases, penalties and grammar of this answer."""
    tokens: Sequence[int] = ()
    """The answer's tokens so far, for its reshaping."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature < 1e-5

    @property
    def key(self) -> int:
        """64 bits that differ for each seed, choice and position."""
        key = _mixed(self.seed & _MASK64)
        key = _mixed(key ^ (self.choice + 0x9E3779B97F4A7C15))
        return _mixed(key ^ (self.position + 0xD1B54A32D192ED03))


def choose(logits_RV: torch.Tensor, rows: Sequence[Choosing]) -> list[int]:
    """The next token of each row. A row's reshaping hears of the row's tokens here, so it must be
    called once for each of an answer's tokens, in their order."""
    tokens = [0 if row.forced is None else row.forced for row in rows]
    plain = [i for i, row in enumerate(rows) if row.reshaping is None]
    changed = [i for i, row in enumerate(rows) if row.reshaping is not None]
    if changed:
        scores = _reshaped(logits_RV, changed, rows)
        _choose_among(scores, changed, range(len(changed)), rows, tokens)
    _choose_among(logits_RV, plain, plain, rows, tokens)
    return tokens


def _choose_among(
    scores: torch.Tensor,
    chosen: Sequence[int],
    places: Sequence[int],
    rows: Sequence[Choosing],
    tokens: list[int],
) -> None:
    """Writes the tokens of the `chosen` rows, whose scores stand in `places`."""
    free = [(i, at) for i, at in zip(chosen, places, strict=True) if rows[i].forced is None]
    greedy = [pair for pair in free if rows[pair[0]].is_greedy]
    if greedy:
        found = _best(scores, [at for _, at in greedy])
        for (i, _), token in zip(greedy, found, strict=True):
            tokens[i] = token
    drawn = [pair for pair in free if not rows[pair[0]].is_greedy]
    if drawn:
        found = _draw(scores, [at for _, at in drawn], [rows[i] for i, _ in drawn])
        for (i, _), token in zip(drawn, found, strict=True):
            tokens[i] = token


def _best(scores: torch.Tensor, places: list[int]) -> list[int]:
    """The first of the largest in each of these rows."""
    best = argmax(scores)
    if best is not None:
        return [int(token) for token in best[places]]
    # numpy's argmax runs at the speed of memory; torch's takes 25 times as long in bf16.
    wanted = scores if len(places) == len(scores) else scores[places]
    return [int(token) for token in wanted.float().numpy().argmax(-1)]


def _reshaped(
    logits_RV: torch.Tensor, changed: list[int], rows: Sequence[Choosing]
) -> torch.Tensor:
    """The `changed` rows in float32, reshaped. The logits stay as they are."""
    every = len(changed) == len(logits_RV)
    scores = logits_RV.to(torch.float32, copy=True) if every else logits_RV[changed].float()
    whole = scores.numpy()
    for at, i in enumerate(changed):
        reshaping = rows[i].reshaping
        if reshaping is not None:
            reshaping.apply(whole[at], rows[i].tokens)
    return scores


def logprobs(
    logits_RV: torch.Tensor, tokens: Sequence[int], tops: Sequence[int], places: Sequence[int]
) -> list[Candidates]:
    """Log-probabilities of the network itself, before temperature and top_p, in each of `places`
    among the rows: its token's, and as many of the best as its `tops` says."""
    most = max(tops, default=0)
    if kernels.takes(logits_RV):
        found = kernels.listed(logits_RV, places, tokens, most)
    else:
        found = list_by_torch(logits_RV[list(places)], tokens, most)
    return [
        Candidates(one.chosen, one.ids[:k], one.logprobs[:k])
        for one, k in zip(found, tops, strict=True)
    ]


def list_by_torch(
    logits_RV: torch.Tensor, tokens: Sequence[int], most: int
) -> list[kernels.Listed]:
    """What the kernels list, by torch."""
    scores = torch.log_softmax(logits_RV.float(), -1)
    chosen = scores.gather(1, torch.tensor(tokens).unsqueeze(1)).squeeze(1).tolist()
    best = scores.topk(most, -1)
    return list(map(kernels.Listed, chosen, best.indices.tolist(), best.values.tolist()))


def _draw(scores: torch.Tensor, places: list[int], rows: list[Choosing]) -> list[int]:
    if kernels.takes(scores):
        ways = [kernels.Draw(row.key, row.temperature, row.top_p) for row in rows]
        return kernels.draw(scores, places, ways)
    return draw_by_torch(scores[places], rows)


def draw_by_torch(logits_RV: torch.Tensor, rows: Sequence[Choosing]) -> list[int]:
    """What the kernels draw, by torch: one token a row."""
    heat = torch.tensor([[row.temperature] for row in rows], dtype=torch.float32)
    scores = logits_RV.float() / heat
    limited = [i for i, row in enumerate(rows) if row.top_p < 1.0]
    if limited:
        scores[limited] = _nucleus(scores[limited], [rows[i].top_p for i in limited])
    size = scores.shape[1]
    blocks = -(-size // _BLOCK)
    if blocks * _BLOCK != size:
        scores = torch.nn.functional.pad(scores, (0, blocks * _BLOCK - size), value=-math.inf)
    parts = scores.view(len(rows), blocks, _BLOCK)
    noise = _gumbel([row.key for row in rows], blocks + _BLOCK)
    block = (parts.logsumexp(-1) + noise[:, :blocks]).argmax(-1)
    inside = parts[torch.arange(len(rows)), block] + noise[:, blocks:]
    tokens: list[int] = (block * _BLOCK + inside.argmax(-1)).tolist()
    return tokens


def _nucleus(scores: torch.Tensor, top_ps: list[float]) -> torch.Tensor:
    """Keeps the smallest set of best tokens whose mass reaches top_p; equals stay together."""
    limit = torch.tensor([[p] for p in top_ps])
    mass = scores.logsumexp(-1, keepdim=True)
    count = min(_CANDIDATES, scores.shape[1])
    while True:
        best = scores.topk(count, -1).values
        sums = (best - mass).exp().cumsum(-1)
        if count == scores.shape[1] or bool((sums[:, -1:] >= limit).all()):
            break
        count = min(count * 8, scores.shape[1])
    kept = (sums - (best - mass).exp() < limit).sum(-1, keepdim=True).clamp(min=1)
    threshold = best.gather(1, kept - 1)
    return scores.masked_fill(scores < threshold, -math.inf)


def _gumbel(keys: list[int], count: int) -> torch.Tensor:
    """Standard Gumbel noise `[len(keys), count]` from a hash of key and index."""
    signed = [key - (1 << 64) if key >= 1 << 63 else key for key in keys]
    counter = torch.arange(1, count + 1) * -0x61C8864680B583EB
    bits = _mixed_tensor(torch.tensor(signed).unsqueeze(1) + counter)
    uniform = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform)).float()


def _mixed(x: int) -> int:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK64
    return x ^ (x >> 31)


def _mixed_tensor(x: torch.Tensor) -> torch.Tensor:
    """The same on int64 tensors, whose products wrap and whose shifts must be made unsigned."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    return (x >> by) & ((1 << (64 - by)) - 1)
