"""One optimiser step: bins forward and backward, clipping, the update, and what it measured.

The gradient of a step is that of the mean loss over all learned tokens of its rows, whichever bins
they lie in: each bin adds its sum divided by the step's count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afina.domain.mixing import mixed_key
from afina.domain.runs import RunSpec
from afina.domain.sayings import Said
from afina.domain.ways import Way
from afina.errors import TrainingFailed
from afina.model.packed import Masks
from afina.training.bins import BinTensors, Rows, plan_bins
from afina.training.evaluation import evaluate
from afina.training.failures import is_out_of_memory
from afina.training.frozen import FrozenRows
from afina.training.memory import Capacities, bytes_of_token
from afina.training.network import Network
from afina.training.optimizer import AdamW
from afina.training.packing import (
    Bin,
    epoch_order,
    rows_of_step,
    steps_in_epoch,
)
from afina.training.signals import Interrupted
from afina.training.team import Order


@dataclass(frozen=True)
class StepResult:
    """What a step measured. `tokens` are billed, `learned` carry loss."""

    loss: float
    accuracy: float
    tokens: int
    learned: int
    row_losses: Mapping[int, float] = field(default_factory=dict)
    """The mean loss of each row that has learned tokens, as the step met it; of pairs, by pair."""
    measured: Mapping[str, float] | None = None
    """What the step's event says, where that is not the loss and the accuracy of tokens."""
    warnings: tuple[Said, ...] = ()
    """What the user should know of how the step came about."""

    def metrics(self) -> dict[str, float]:
        """What the step measured, by name."""
        if self.measured is not None:
            return dict(self.measured)
        return {"loss": self.loss, "mean_token_accuracy": self.accuracy}


class Stepper:
    """Takes the steps of a run; what step N does depends on N, the spec and the weights alone."""

    def __init__(
        self,
        spec: RunSpec,
        network: Network,
        optimizer: AdamW,
        rows: Rows,
        *,
        units: int | None = None,
    ) -> None:
        """`units`: what an epoch counts, where that is not rows."""
        self.spec = spec
        self.network = network
        self.optimizer = optimizer
        self.rows = rows
        self.lengths = rows.lengths
        self.units = len(rows) if units is None else units
        self.steps_per_epoch = steps_in_epoch(self.units, spec.batch_size)
        self.capacities = Capacities(
            spec.bin_capacities,
            int(self.lengths.max(initial=0)),
            bytes_of_token(
                network.base,
                int(self.lengths.max(initial=0)),
                Way.of_run(spec),
                kernels=network.by_kernels,
            ),
            processes=network.team.here,
            halved=network.team.halved,
        )
        self._masks = Masks()
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def epoch_of(self, step: int) -> int:
        """The epoch of a step; both count from 1."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last of its epoch."""
        return step % self.steps_per_epoch == 0

    def evaluate(self, rows: Rows, chosen: Sequence[int]) -> dict[str, float]:
        """What validation measures on the chosen rows, by name."""
        loss, accuracy = evaluate(self.network, rows, chosen, self.spec.bin_capacities)
        return {"loss": loss, "mean_token_accuracy": accuracy}

    def count(self, rows: Rows) -> int:
        """What an epoch through `rows` counts."""
        return len(rows)

    def take(self, step: int, interrupted: Callable[[], bool] = lambda: False) -> StepResult:
        """Takes step `step`, in smaller bins where memory runs out. Raises TrainingFailed if a
        number is not finite or memory does not suffice, with the weights as they were before, and
        Interrupted if the callback says so between bins."""
        while True:
            try:
                result = self._take(step, interrupted)
                return replace(result, warnings=self.capacities.tell())
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside of the handler, which holds the step's tensors by their frames
            self.capacities.halve(step)

    def _take(self, step: int, interrupted: Callable[[], bool]) -> StepResult:
        chosen = self._rows_of(step)
        learned = self._learned(chosen)
        tokens = int(sum(self.lengths[row] for row in chosen))
        if not learned:
            return StepResult(0.0, 0.0, tokens, 0)
        loss = accuracy = 0.0
        of_rows: dict[int, float] = {}
        for part in self._together(step, interrupted):
            loss += part[0]
            accuracy += part[1]
            of_rows |= part[2]
        self._move(step)
        return StepResult(loss, accuracy, tokens, learned, of_rows)

    def _move(self, step: int) -> None:
        """Moves the weights by the step's gradient. Raises TrainingFailed."""
        moved = self.optimizer.update(self.network.adapter.grads, step)
        if not math.isfinite(moved.norm):
            raise not_finite("gradient", step)
        if not moved.finite:
            raise not_finite("result", step)
        self.network.adapter.refresh()

    def _together(self, step: int, interrupted: Callable[[], bool]) -> list[Any]:
        """What each process has to say of its part of the step; their gradients, summed."""
        team, adapter = self.network.team, self.network.adapter
        team.begin(
            Order(step, self.capacities.planned, isinstance(self.rows, FrozenRows)),
            adapter.masters,
        )
        return self._collected(step, interrupted)

    def _collected(self, step: int, interrupted: Callable[[], bool]) -> list[Any]:
        adapter = self.network.adapter
        adapter.grads.zero_()
        part, failure = None, None
        try:
            part = self._part(step, interrupted)
        except Exception as error:  # noqa: BLE001 - the others wait for our word, whatever it is
            failure = error
        return self.network.team.collect(adapter.grads, part, failure)

    def help(self, order: Order) -> None:
        """Computes this process's part of a step that another one leads."""
        self.capacities.planned = order.capacities
        self._collected(order.step, lambda: False)

    def _part(self, step: int, interrupted: Callable[[], bool]) -> Any:
        """Loss, accuracy and losses by row of this process's rows."""
        team = self.network.team
        chosen = self._rows_of(step)
        learned = self._learned(chosen)
        mine = team.share(chosen, lambda row: int(self.lengths[row]))
        # dropout draws one mask for each token, so with it no token can stand for several chats
        share = self.spec.lora.dropout == 0
        loss = accuracy = 0.0
        of_rows: dict[int, float] = {}
        packed = plan_bins(self.rows, mine, self.capacities.planned, share=share) if mine else ()
        for number, one in enumerate(packed):
            if interrupted():
                raise Interrupted
            tensors = self.network.make_bin(self.rows, one, self._masks)
            part = self._backward(tensors, learned, step, team.rank + team.size * number)
            loss += part[0]
            accuracy += part[1]
            of_rows |= row_losses(self.rows, one, part[2])
        return loss, accuracy, of_rows

    def _learned(self, chosen: Sequence[int]) -> int:
        return sum(int(self.rows.row(row)[1][1:].sum()) for row in chosen)

    @contextmanager
    def _dropping(self, step: int, number: int) -> Iterator[None]:
        """Dropout, where the run has any, with masks that depend on the step and the bin alone."""
        adapter = self.network.adapter
        if self.spec.lora.dropout > 0:
            key = mixed_key(self.spec.seed, 2, step, number)
            adapter.dropout_generator = torch.Generator().manual_seed(key)
        try:
            yield
        finally:
            adapter.dropout_generator = None

    def _backward(
        self, tensors: BinTensors, learned: int, step: int, number: int
    ) -> tuple[float, float, torch.Tensor]:
        with self._dropping(step, number):
            loss, right, losses_K = self.network.loss(tensors, learned)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise not_finite("loss", step)
            loss.backward()  # type: ignore[no-untyped-call]
        return value, float(right), losses_K

    def _rows_of(self, step: int) -> tuple[int, ...]:
        epoch = self.epoch_of(step)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.units, self.spec.seed, epoch))
        within = (step - 1) % self.steps_per_epoch
        return rows_of_step(self._order[1], self.spec.batch_size, within)


def not_finite(what: str, step: int) -> TrainingFailed:
    """Something of step `step` is no number, or one that is too large."""
    remedy = (
        "No weight had moved yet: the base model itself gives that for these rows. Pull it again, "
        "or set training.precision to fp32, and look at the rows for odd texts."
        if step == 1 and what in ("loss", "gradient")
        else "Lower learning_rate_multiplier, and look at the rows for odd texts. "
        "The last checkpoint before that step is kept."
    )
    return TrainingFailed(
        f"The {what} of step {step} is not a finite number.", code="not_finite", remedy=remedy
    )


def checked(found: dict[str, float], step: int) -> dict[str, float]:
    """What a step measured, by name. Raises TrainingFailed for what is no number."""
    for name, value in found.items():
        if not math.isfinite(value):
            raise not_finite(name, step)
    return found


def row_losses(rows: Rows, packed: Bin, losses_K: torch.Tensor) -> dict[int, float]:
    """The mean of each row's own positions of a bin, whose rows stand in `losses_K` in order."""
    found = {}
    start = 0
    for number in packed.rows:
        count = int(rows.row(number)[1][1:].sum())
        found[number] = float(losses_K[start : start + count].mean())
        start += count
    return found
