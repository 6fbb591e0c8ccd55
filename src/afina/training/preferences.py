"""Steps on preference pairs: rows 2i and 2i + 1 of the shards are the two answers to a question.

Both rows of a pair stand in one bin, so the question is computed once where bins share beginnings.
The reference is the model as it stands at step 0 of the run, whatever it came from: its
log-probabilities are computed once and kept in the run's directory.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load, save

from afina.domain.runs import RunSpec
from afina.domain.ways import Way
from afina.model.packed import Masks
from afina.model.preference import Preferred, preference_losses, token_logs
from afina.training.bins import Rows
from afina.training.memory import Capacities, bytes_of_token
from afina.training.network import Network
from afina.training.optimizer import AdamW
from afina.training.packing import Bin
from afina.training.planning import pair_bins
from afina.training.signals import Interrupted
from afina.training.steps import Stepper, StepResult, not_finite

__all__ = [
    "PreferenceStepper",
    "keep_reference",
    "kept_reference",
    "pair_bins",
    "reference_logs",
    "row_logs",
]

REFERENCE: Final = "reference.safetensors"
_CHUNK_PAIRS: Final = 32


def row_logs(network: Network, rows: Rows, packed: Bin, masks: Masks) -> dict[int, torch.Tensor]:
    """log p of each row's answer, by row, with its gradient."""
    tensors = network.make_bin(rows, packed, masks)
    logs_K = token_logs(network.logits(tensors), tensors.targets_K)
    found = {}
    start = 0
    for row in packed.rows:
        count = int(rows.row(row)[1][1:].sum())
        found[row] = logs_K[start : start + count].sum()
        start += count
    return found


def reference_logs(
    network: Network, rows: Rows, capacities: Sequence[int], interrupted: Callable[[], bool]
) -> torch.Tensor:
    """log ref of every row, fp32 `[rows]`. Raises Interrupted."""
    found = torch.zeros(len(rows))
    masks = Masks()
    pairs = len(rows) // 2
    with torch.no_grad():
        for start in range(0, pairs, _CHUNK_PAIRS):
            if interrupted():
                raise Interrupted
            chosen = range(start, min(start + _CHUNK_PAIRS, pairs))
            for packed in pair_bins(rows, chosen, capacities):
                for row, log in row_logs(network, rows, packed, masks).items():
                    found[row] = log
    return found


def keep_reference(path: Path, logs: Mapping[str, torch.Tensor]) -> None:
    """Writes the reference, whole, with its hash in front."""
    raw = save(dict(logs))
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        file.write(hashlib.sha256(raw).digest() + raw)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def kept_reference(path: Path) -> dict[str, torch.Tensor] | None:
    """The reference of an earlier attempt; None where there is none or it is damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(raw[32:]).digest() != raw[:32]:
        return None
    found: dict[str, torch.Tensor] = load(raw[32:])
    return found


@dataclass
class _Sums:
    """What pairs gave together."""

    loss: float = 0.0
    right: float = 0.0
    chosen: float = 0.0
    rejected: float = 0.0
    pairs: int = 0

    def add(self, found: Preferred) -> None:
        self.loss += float(found.losses.detach().sum())
        self.right += float((found.chosen_rewards > found.rejected_rewards).sum())
        self.chosen += float(found.chosen_rewards.sum())
        self.rejected += float(found.rejected_rewards.sum())
        self.pairs += len(found.losses)

    def join(self, other: _Sums) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def means(self) -> dict[str, float]:
        count = max(self.pairs, 1)
        return {
            "loss": self.loss / count,
            "reward_accuracy": self.right / count,
            "reward_margin": (self.chosen - self.rejected) / count,
            "chosen_reward": self.chosen / count,
            "rejected_reward": self.rejected / count,
        }


class PreferenceStepper(Stepper):
    """Takes the steps of a run on pairs; `batch_size` counts pairs."""

    def __init__(
        self,
        spec: RunSpec,
        network: Network,
        optimizer: AdamW,
        rows: Rows,
        reference: torch.Tensor,
        valid_reference: torch.Tensor | None,
    ) -> None:
        super().__init__(spec, network, optimizer, rows, units=len(rows) // 2)
        longest = int(self.lengths.max(initial=0))
        # a bin holds whole pairs
        self.capacities = Capacities(
            spec.bin_capacities,
            2 * longest,
            bytes_of_token(network.base, longest, Way.of_run(spec), kernels=network.by_kernels),
            processes=network.team.here,
        )
        self._reference = reference.view(-1, 2)
        self._valid_reference = None if valid_reference is None else valid_reference.view(-1, 2)

    def _take(self, step: int, interrupted: Callable[[], bool]) -> StepResult:
        pairs = self._rows_of(step)
        sums = _Sums()
        of_rows: dict[int, float] = {}
        for its_sums, its_rows in self._together(step, interrupted):
            sums.join(its_sums)
            of_rows |= its_rows
        self._move(step)
        both = [row for pair in pairs for row in (2 * pair, 2 * pair + 1)]
        return StepResult(
            loss=sums.means()["loss"],
            accuracy=0.0,
            tokens=int(sum(self.lengths[row] for row in both)),
            learned=sum(int(self.rows.row(row)[1][1:].sum()) for row in both),
            row_losses=of_rows,
            measured=sums.means(),
        )

    def _part(self, step: int, interrupted: Callable[[], bool]) -> tuple[_Sums, dict[int, float]]:
        """Sums and losses by pair of this process's pairs."""
        pairs = self._rows_of(step)
        mine = self.network.team.share(
            pairs, lambda pair: int(self.lengths[2 * pair] + self.lengths[2 * pair + 1])
        )
        sums = _Sums()
        of_rows: dict[int, float] = {}
        # as in plain steps: dropout draws one mask for each token
        share = self.spec.lora.dropout == 0
        bins = pair_bins(self.rows, mine, self.capacities.planned, share=share)
        for number, packed in enumerate(bins):
            if interrupted():
                raise Interrupted
            with self._dropping(step, self.network.team.rank + self.network.team.size * number):
                members, found = self._measure(self.rows, packed, self._reference)
                loss = found.losses.sum() / len(pairs)
                if not math.isfinite(float(loss.detach())):
                    raise not_finite("loss", step)
                loss.backward()  # type: ignore[no-untyped-call]
            sums.add(found)
            of_rows |= dict(zip(members, found.losses.tolist(), strict=True))
        return sums, of_rows

    def evaluate(self, rows: Rows, chosen: Sequence[int]) -> dict[str, float]:
        """See Stepper; `chosen` are pairs."""
        assert self._valid_reference is not None
        sums = _Sums()
        with torch.no_grad():
            for packed in pair_bins(rows, chosen, self.spec.bin_capacities):
                sums.add(self._measure(rows, packed, self._valid_reference)[1])
        return sums.means()

    def count(self, rows: Rows) -> int:
        """Pairs."""
        return len(rows) // 2

    def _measure(
        self, rows: Rows, packed: Bin, reference: torch.Tensor
    ) -> tuple[list[int], Preferred]:
        logs = row_logs(self.network, rows, packed, self._masks)
        pairs = sorted({row // 2 for row in packed.rows})
        chosen = torch.stack([logs[2 * pair] for pair in pairs])
        rejected = torch.stack([logs[2 * pair + 1] for pair in pairs])
        found = preference_losses(chosen, rejected, reference[pairs], self.spec.beta)
        return pairs, found
