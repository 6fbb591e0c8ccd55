"""From a spec to what carries it out: the network of its tuning, the stepper of its method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from afina.domain.runs import Precision, RunSpec
from afina.model.base import LoadedBase, load_base
from afina.model.four_bits import hold_in_four_bits
from afina.training.bins import Rows
from afina.training.network import DoraNetwork, Network, TrainedNetwork
from afina.training.optimizer import AdamW
from afina.training.own_network import FullNetwork, TopNetwork
from afina.training.preferences import PreferenceStepper
from afina.training.steps import Stepper

Load = Callable[[Path, Precision], LoadedBase]


def build_network(spec: RunSpec, load: Load = load_base) -> Network:
    """The network of a run, with its base loaded. Raises BaseRefused."""
    base = load(Path(spec.base.path), spec.precision)
    if spec.tune.base_bits == 4:
        hold_in_four_bits(base.model, keep=[base.model.get_output_embeddings()])
    if spec.sharded:
        # torch's part for it takes its time to load, and few runs need it
        from afina.training.sharded import ShardedNetwork

        return ShardedNetwork(base, spec, load)
    if spec.tune.kind == "full":
        return FullNetwork(base)
    if spec.tune.kind == "blocks":
        return TopNetwork(base, spec)
    if spec.tune.kind == "dora":
        return DoraNetwork(base, spec.lora, spec.seed, spec.base.id)
    return TrainedNetwork(base, spec.lora, spec.seed, spec.base.id)


def build_stepper(
    spec: RunSpec,
    network: Network,
    optimizer: AdamW,
    rows: tuple[Rows, Rows | None],
    reference: Callable[[Rows, str], torch.Tensor],
) -> Stepper:
    """The stepper of a run on training and validation rows. `reference` is asked where the method
    compares with the model of step 0."""
    training, validation = rows
    if spec.sharded:
        from afina.training.sharded import ShardedStepper

        return ShardedStepper(spec, network, optimizer, training)
    if spec.method == "supervised":
        return Stepper(spec, network, optimizer, training)
    valid = None if validation is None else reference(validation, "validation")
    return PreferenceStepper(
        spec, network, optimizer, training, reference(training, "training"), valid
    )
