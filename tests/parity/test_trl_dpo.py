"""Our losses and rewards on preference pairs are TRL's on the same batches: same start, same pairs,
same schedule, fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.training.test_methods import make_pairs

from afina.data.shards import Shards
from afina.domain.runs import OptimizerSpec, RunPaths
from afina.training.given import read_spec
from afina.training.methods import build_network, build_stepper
from afina.training.network import TrainedNetwork
from afina.training.optimizer import AdamW
from afina.training.preferences import PreferenceStepper, reference_logs

STEPS = 4
BATCH = 3


@pytest.fixture
def stepper(tmp_path: Path) -> PreferenceStepper:
    make_pairs(tmp_path / "run", pairs=STEPS * BATCH)
    spec = read_spec(RunPaths(tmp_path / "run"))
    object.__setattr__(spec, "optimizer", OptimizerSpec(5e-3, 0, STEPS))
    network = build_network(spec)
    rows = Shards.open(Path(spec.training.path))
    made = build_stepper(
        spec,
        network,
        AdamW(spec.optimizer, network.adapter.masters),
        (rows, None),
        lambda rows, _: reference_logs(network, rows, spec.bin_capacities, lambda: False),
    )
    assert isinstance(made, PreferenceStepper)
    return made


def pairs_in_order(stepper: PreferenceStepper) -> list[dict[str, list[int]]]:
    found = []
    for step in range(1, STEPS + 1):
        for pair in stepper._rows_of(step):
            parts: dict[str, list[int]] = {}
            for name, row in (("chosen_ids", 2 * pair), ("rejected_ids", 2 * pair + 1)):
                ids, learned = stepper.rows.row(row)
                places = np.flatnonzero(learned)
                parts["prompt_ids"] = ids[: places[0]].tolist()
                parts[name] = ids[places[0] : places[-1] + 1].tolist()
            found.append(parts)
    return found


def trl_history(stepper: PreferenceStepper, folder: Path) -> list[dict[str, float]]:
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset or self.train_dataset)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    spec = stepper.spec
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=spec.optimizer.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        max_grad_norm=spec.optimizer.max_gradient_norm,
        beta=spec.beta,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        disable_tqdm=True,
    )
    network = stepper.network
    assert isinstance(network, TrainedNetwork)
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(spec.base.path, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(pairs_in_order(stepper)),
        processing_class=AutoTokenizer.from_pretrained(spec.base.path),
        peft_config=LoraConfig(
            r=spec.lora.rank,
            lora_alpha=int(spec.lora.alpha),
            target_modules=list(spec.lora.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    state = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name in network.adapter.names:
            a, b = network.adapter.master_views(name)
            state[f"base_model.model.{name}.lora_A.default.weight"].copy_(a)
            state[f"base_model.model.{name}.lora_B.default.weight"].copy_(b)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
def test_losses_and_rewards_of_pairs_are_those_of_trl_on_the_same_batches(
    stepper: PreferenceStepper, tmp_path: Path
) -> None:
    theirs = trl_history(stepper, tmp_path / "trl")
    ours = [stepper.take(step).metrics() for step in range(1, STEPS + 1)]
    assert len(theirs) == STEPS
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)
        assert one["reward_margin"] == pytest.approx(other["rewards/margins"], abs=1e-3)
        assert one["reward_accuracy"] == pytest.approx(other["rewards/accuracies"], abs=1e-3)
    assert abs(ours[-1]["reward_margin"]) > 0.1
