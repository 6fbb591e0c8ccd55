"""Our loss curve is TRL's on the same batches: same start, same rows, same schedule, fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_run import make_run

from afina.domain.runs import OptimizerSpec, RunPaths
from afina.model.base import load_base
from afina.model.trained import TrainedAdapter
from afina.training.given import read_spec
from afina.training.network import TrainedNetwork
from afina.training.optimizer import AdamW
from afina.training.steps import Stepper

BATCH = 4


@pytest.fixture
def stepper(tmp_path: Path) -> Stepper:
    from afina.data.shards import Shards

    optimizer = OptimizerSpec(5e-3, 0, 6, weight_decay=0.01)
    make_run(tmp_path / "run", rows=12, batch_size=BATCH, optimizer=optimizer)
    spec = read_spec(RunPaths(tmp_path / "run"))
    network = TrainedNetwork(load_base(Path(spec.base.path), "fp32"), spec.lora, spec.seed)
    rows = Shards.open(Path(spec.training.path))
    return Stepper(spec, network, AdamW(spec.optimizer, network.adapter.masters), rows)


def rows_in_order(stepper: Stepper) -> list[dict[str, list[int]]]:
    """All rows of all steps, in the order in which our steps take them."""
    found = []
    for step in range(1, stepper.spec.optimizer.total_steps + 1):
        for number in stepper._rows_of(step):
            ids, learned = stepper.rows.row(number)
            labels = np.where(learned, ids, -100)
            found.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return found


def trl_losses(stepper: Stepper, folder: Path) -> list[float]:
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset or self.train_dataset)

    spec = stepper.spec
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=spec.optimizer.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=spec.optimizer.weight_decay,
        max_grad_norm=spec.optimizer.max_gradient_norm,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        disable_tqdm=True,
    )
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(spec.base.path, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows_in_order(stepper)),
        processing_class=AutoTokenizer.from_pretrained(spec.base.path),
        peft_config=LoraConfig(
            r=spec.lora.rank,
            lora_alpha=int(spec.lora.alpha),
            target_modules=list(spec.lora.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    state = dict(trainer.model.named_parameters())
    adapter = stepper.network.adapter
    assert isinstance(adapter, TrainedAdapter)
    with torch.no_grad():
        for name in adapter.names:
            a, b = adapter.master_views(name)
            state[f"base_model.model.{name}.lora_A.default.weight"].copy_(a)
            state[f"base_model.model.{name}.lora_B.default.weight"].copy_(b)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
def test_the_loss_curve_is_that_of_trl_on_the_same_batches(
    stepper: Stepper, tmp_path: Path
) -> None:
    theirs = trl_losses(stepper, tmp_path / "trl")
    ours = [stepper.take(step).loss for step in range(1, 7)]
    assert len(theirs) == 6
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours[-1] < ours[0] - 0.3
