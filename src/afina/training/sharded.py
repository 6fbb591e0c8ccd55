"""All weights learn, and each of several processes keeps a part of them: FSDP2 over gloo.

Weights (fp32 masters), gradients and moments lie in shards; a block's weights are put together in
the run's precision while it computes, and let go again. Every process has to take part in every
pass, so whatever ends a step early is agreed on before the backward pass, a process with fewer bins
than another computes one again that counts nothing, and whatever nobody foresaw ends all of them.
Checkpoints are those of any run, written weight by weight: no process ever holds the whole state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import safe_open
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from afina.data.shards import Shards
from afina.domain.manifests import OWN_WEIGHTS
from afina.domain.runs import OptimizerSpec, RunSpec
from afina.errors import TrainingFailed
from afina.model.base import LoadedBase
from afina.model.own_weights import all_parameters, find_blocks, read_weights
from afina.training.bins import BinTensors, Rows, plan_bins
from afina.training.failures import is_out_of_memory
from afina.training.memory import halvings_of, note_halving
from afina.training.network import MASTERS, OPTIMIZER, Network
from afina.training.optimizer import AdamW, Move, Moved
from afina.training.packing import Bin
from afina.training.signals import Interrupted
from afina.training.steps import Stepper, StepResult, not_finite, row_losses
from afina.training.team import Joined, Order, Team, gone
from afina.training.tensor_files import Pieces, header, numbers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

NOTHING: Final = torch.empty(0)
"""Stands where a run that is not sharded has flat masters and gradients."""


class ShardedWeights:
    """This process's part of every parameter of a network."""

    def __init__(self, model: PreTrainedModel, mesh: DeviceMesh, dtype: torch.dtype) -> None:
        self.masters = self.grads = NOTHING
        self.dropout_generator: torch.Generator | None = None
        self.mesh = mesh
        policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for module in (*find_blocks(model)[1], model):
            # one block at a time, so that the whole never stands here in fp32
            for parameter in module.parameters():
                if not isinstance(parameter, DTensor):
                    parameter.data = parameter.data.float()
                    parameter.requires_grad_(True)
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # gloo has no product with a factor; the sum is what we want anyway
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self.named: dict[str, nn.Parameter] = all_parameters(model)

    def refresh(self) -> None:
        """Nothing to do: the masters are what is computed with."""

    def parts(self) -> list[torch.Tensor]:
        """This process's rows of each parameter; writing to them changes the masters."""
        with torch.no_grad():
            return [_local(parameter) for parameter in self.named.values()]

    def rows_here(self, name: str) -> slice:
        """Which rows of a parameter lie here."""
        rows, size, rank = self.named[name].shape[0], self.mesh.size(), self.mesh.get_local_rank()
        each = -(-rows // size)
        return slice(min(rank * each, rows), min((rank + 1) * each, rows))

    def whole(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """What lies in shards like those of a parameter, put together; all have to ask for it."""
        like = self.named[name]
        spread = DTensor.from_local(
            part, self.mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
        )
        full: torch.Tensor = spread.full_tensor()
        return full


def _local(tensor: torch.Tensor) -> torch.Tensor:
    assert isinstance(tensor, DTensor)
    local: torch.Tensor = tensor.to_local()
    return local


class ShardedAdamW(AdamW):
    """AdamW over this process's parts."""

    def __init__(self, spec: OptimizerSpec, weights: ShardedWeights) -> None:
        super().__init__(spec, NOTHING)
        self.weights = weights
        parts = weights.parts()
        self.moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in parts]

    def update(self, grads: torch.Tensor, step: int) -> Moved:  # noqa: ARG002
        """See AdamW; every process has to call it."""
        parameters = list(self.weights.named.values())
        with torch.no_grad():
            found = [None if p.grad is None else _local(p.grad) for p in parameters]
            squares = sum(float(torch.linalg.vector_norm(g)) ** 2 for g in found if g is not None)
            norm = math.sqrt(_agreed(squares, distributed.ReduceOp.SUM))
            odd = False
            if math.isfinite(norm):
                move = Move.of(self.spec, step, norm)
                parts = self.weights.parts()
                for part, grad, moments in zip(parts, found, self.moments, strict=True):
                    grad = torch.zeros_like(part) if grad is None else grad
                    odd |= not move.apply(part, grad, moments)
        for parameter in parameters:
            parameter.grad = None
        return Moved(norm, not anybody(odd))


def _agreed(value: float, how: Any) -> float:
    """One number made of everybody's."""
    told = torch.tensor([value], dtype=torch.float64)
    distributed.all_reduce(told, how)
    return float(told)


def anybody(flag: bool) -> bool:
    """Whether any process says so; all have to ask."""
    return _agreed(float(flag), distributed.ReduceOp.MAX) > 0


class ShardedNetwork(Network):
    """Every weight of a base is tuned, each process keeping a part."""

    written_beside = False
    adapter: ShardedWeights

    def __init__(
        self, base: LoadedBase, spec: RunSpec, load: Callable[[Path, Any], LoadedBase]
    ) -> None:
        self.base = base
        self._spec = spec
        self._load = load

    def join(self, team: Team) -> None:
        """See Network. Raises TrainingFailed where there is nobody to share with."""
        if not isinstance(team, Joined):
            raise TrainingFailed(
                "Weights can be sharded over several processes only; this run has one.",
                remedy="Set AFINA_TRAINING__PROCESSES, or leave out "
                "AFINA_TRAINING__SHARD_FULL_WEIGHTS.",
            )
        super().join(team)
        group = distributed.group.WORLD
        assert group is not None
        mesh = DeviceMesh.from_group(group, "cpu")
        self.adapter = ShardedWeights(self.model, mesh, next(self.model.parameters()).dtype)

    @property
    def joined(self) -> Joined:
        assert isinstance(self.team, Joined)
        return self.team

    def optimizer(self, spec: OptimizerSpec) -> AdamW:
        """See Network."""
        return ShardedAdamW(spec, self.adapter)

    def files(self) -> dict[str, bytes]:
        """Never asked: `contents` writes them weight by weight."""
        raise NotImplementedError

    def contents(self, optimizer: AdamW, *, still: bool = True) -> dict[str, Pieces]:  # noqa: ARG002
        """See Network; the other processes give their parts while the pieces are read, in the
        files' order."""
        self.joined.tell(Order(task="save"))
        return self.streams(optimizer)

    def streams(self, optimizer: AdamW) -> dict[str, Pieces]:
        """The files, whose pieces every process has to read, in order."""
        assert isinstance(optimizer, ShardedAdamW)
        named, parts = self.adapter.named, self.adapter.parts()
        places = {name: place for place, name in enumerate(named)}
        count = sum(parameter.numel() for parameter in named.values())
        flat = (torch.float32, (count,))

        def published() -> Iterator[bytes | memoryview]:
            shapes = {name: (torch.bfloat16, p.shape) for name, p in named.items()}
            yield header(shapes, {"format": "pt"})
            for name in sorted(named):
                whole = self.adapter.whole(name, parts[places[name]])
                yield numbers(whole.to(torch.bfloat16))

        def one_behind_another(
            names: Sequence[str], tensors: Sequence[Sequence[torch.Tensor]]
        ) -> Iterator[bytes | memoryview]:
            yield header(dict.fromkeys(names, flat))
            for each in tensors:
                for name, part in zip(named, each, strict=True):
                    yield numbers(self.adapter.whole(name, part))

        first, second = zip(*optimizer.moments, strict=True)
        return {
            OWN_WEIGHTS: published(),
            MASTERS: one_behind_another(["masters"], [parts]),
            OPTIMIZER: one_behind_another(["first", "second"], [first, second]),
        }

    def take_up(self, folder: Path, optimizer: AdamW) -> None:
        """See Network."""
        if not self.team.rank:
            self.joined.tell(Order(task="load", folder=str(folder)))
        self.read_state(folder, optimizer)

    def read_state(self, folder: Path, optimizer: AdamW) -> None:
        """This process's parts of a checkpoint."""
        assert isinstance(optimizer, ShardedAdamW)
        first, second = zip(*optimizer.moments, strict=True)
        self._read(folder / MASTERS, "masters", self.adapter.parts())
        self._read(folder / OPTIMIZER, "first", first)
        self._read(folder / OPTIMIZER, "second", second)

    def _read(self, path: Path, key: str, targets: Sequence[torch.Tensor]) -> None:
        with safe_open(path, framework="pt") as file:
            flat, start = file.get_slice(key), 0
            for (name, like), target in zip(self.adapter.named.items(), targets, strict=True):
                here, row = self.adapter.rows_here(name), like.numel() // like.shape[0]
                found = flat[start + here.start * row : start + here.stop * row]
                target.copy_(found.view(target.shape))
                start += like.numel()

    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        """See Network; every process reads its own rows."""
        assert into_masters
        with safe_open(folder / OWN_WEIGHTS, framework="pt") as file:
            for name, part in zip(self.adapter.named, self.adapter.parts(), strict=True):
                here = self.adapter.rows_here(name)
                part.copy_(file.get_slice(name)[here.start : here.stop])

    def published(self, folder: Path) -> Network:
        """The tune as a whole network in this process alone, as an engine would hold it."""
        base = self._load(Path(self._spec.base.path), self._spec.precision)
        base.model.load_state_dict(read_weights(folder / OWN_WEIGHTS), strict=False)
        return _Whole(base)


class _Whole(Network):
    """A network that answers and does not learn."""

    def __init__(self, base: LoadedBase) -> None:
        self.base = base

    def files(self) -> dict[str, bytes]:
        raise NotImplementedError

    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        raise NotImplementedError


class ShardedStepper(Stepper):
    """Takes the steps of a run whose weights are sharded."""

    network: ShardedNetwork

    def take(self, step: int, interrupted: Callable[[], bool] = lambda: False) -> StepResult:
        """See Stepper. Where memory runs out, here or in another process, this life of the run ends
        with DoesNotFit: the others are in the middle of a pass that needs all."""
        team = self.network.joined
        try:
            return replace(self._take(step, interrupted), warnings=self.capacities.tell())
        except (MemoryError, RuntimeError, TrainingFailed) as error:
            if isinstance(error, TrainingFailed) and not team.broken:
                raise  # agreed on
            team.lost()
            if is_out_of_memory(error):
                note_halving(team.root, team.halved + 1)
            elif halvings_of(team.root) == team.halved:
                raise gone(team) from error
        failure = self.capacities.too_large(step)
        failure.in_smaller_bins = self.capacities.can_halve
        raise failure

    def _collected(self, step: int, interrupted: Callable[[], bool]) -> list[Any]:
        for parameter in self.network.adapter.named.values():
            parameter.grad = None
        return self.network.team.collect(NOTHING, self._part(step, interrupted), None)

    def help(self, order: Order) -> None:
        """See Stepper."""
        super().help(order)
        self.optimizer.update(NOTHING, order.step)

    def _part(self, step: int, interrupted: Callable[[], bool]) -> Any:
        chosen = self._rows_of(step)
        learned = self._learned(chosen)
        loss = accuracy = 0.0
        of_rows: dict[int, float] = {}
        for packed, tensors in self._rounds(self.rows, chosen, self.capacities.planned):
            if anybody(interrupted()):
                raise Interrupted
            part = self._backward(tensors, learned, step, 0)
            loss += part[0]
            accuracy += part[1]
            if packed is not None:
                of_rows |= row_losses(self.rows, packed, part[2])
        return loss, accuracy, of_rows

    def _backward(
        self,
        tensors: BinTensors,
        learned: int,
        step: int,
        number: int,  # noqa: ARG002
    ) -> tuple[float, float, torch.Tensor]:
        loss, right, losses_K = self.network.loss(tensors, learned)
        value = float(loss.detach())
        if anybody(not math.isfinite(value)):
            raise not_finite("loss", step)
        loss.backward()  # type: ignore[no-untyped-call]
        return value, float(right), losses_K

    def _rounds(
        self, rows: Rows, chosen: Sequence[int], capacities: Sequence[int]
    ) -> Iterator[tuple[Bin | None, BinTensors]]:
        """This process's bins of the chosen rows, as many as any process has; those that fill up
        are of a bin that counts nothing."""
        mine = self.network.team.share(chosen, lambda row: int(rows.lengths[row]))
        packed = plan_bins(rows, mine, capacities) if mine else ()
        rounds = int(_agreed(len(packed), distributed.ReduceOp.MAX))
        for one in packed:
            yield one, self.network.make_bin(rows, one, self._masks)
        if len(packed) < rounds:
            filling = min(plan_bins(rows, chosen, capacities), key=lambda one: one.capacity)
            tensors = self.network.make_bin(rows, filling, self._masks)
            nothing = replace(tensors, weights_K=torch.zeros_like(tensors.weights_K), learned=0)
            for _ in range(rounds - len(packed)):
                yield None, nothing

    def evaluate(self, rows: Rows, chosen: Sequence[int]) -> dict[str, float]:
        """See Stepper; the processes share the rows."""
        if not self.network.team.rank:
            self.network.joined.tell(Order(task="evaluate", rows=tuple(chosen)))
        loss = right = 0.0
        learned = 0
        with torch.no_grad():
            for _, tensors in self._rounds(rows, chosen, self.spec.bin_capacities):
                part_loss, part_right, _ = self.network.loss(tensors, 1)
                loss += float(part_loss)
                right += float(part_right)
                learned += tensors.learned
        loss, right, count = (
            _agreed(value, distributed.ReduceOp.SUM) for value in (loss, right, learned)
        )
        return {"loss": loss / max(count, 1), "mean_token_accuracy": right / max(count, 1)}


def help_sharded(spec: RunSpec, network: ShardedNetwork, rows: Rows) -> None:
    """Takes part in whatever the leader does, until it lets go. Memory that runs out is noted for
    the run's next life."""
    try:
        _help(spec, network, rows)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            note_halving(network.joined.root, network.joined.halved + 1)
        raise


def _help(spec: RunSpec, network: ShardedNetwork, rows: Rows) -> None:
    if spec.parent is not None:
        network.load_files(Path(spec.parent.path), into_masters=True)
    optimizer = network.optimizer(spec.optimizer)
    stepper = ShardedStepper(spec, network, optimizer, rows)
    valid = Shards.open(Path(spec.validation.path)) if spec.validation else None
    while (order := network.joined.listen(NOTHING)) is not None:
        match order.task:
            case "step":
                try:
                    stepper.help(order)
                except (Interrupted, TrainingFailed):
                    continue  # agreed on: the leader says what follows
            case "evaluate":
                assert valid is not None
                stepper.evaluate(valid, order.rows)
            case "save":
                for pieces in network.streams(optimizer).values():
                    for _ in pieces:
                        pass
            case "load":
                network.read_state(Path(order.folder), optimizer)
