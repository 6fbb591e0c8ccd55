"""TRL's SFTTrainer as its documentation shows it, in a process of its own.

    python -m benchmarks.quality_peer MODEL ROWS.jsonl OUT SETTINGS

SETTINGS is JSON: epochs, seed, threads, and `documented`: false for TRL's and PEFT's defaults
(rate 2e-5, rank 8 on query and value), true for what the page on PEFT recommends for adapters
(rate 2e-4, rank 32, alpha 16, dropout 0.05). Rows are prompt and completion, so that the loss is on
answers alone, as afina's. Gradient checkpointing, which changes no number but the time, is off.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    model, rows, out, settings = sys.argv[1:]
    given = json.loads(settings)
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(given["threads"])
    chats = [json.loads(line)["messages"] for line in Path(rows).read_text().splitlines()]
    data = Dataset.from_list([{"prompt": c[:-1], "completion": c[-1:]} for c in chats])
    # without the task PEFT writes which class it wrapped, which nobody else reads
    adapters, rate = LoraConfig(task_type="CAUSAL_LM"), {}
    if given["documented"]:
        adapters = LoraConfig(
            r=32, lora_alpha=16, lora_dropout=0.05, bias="none", task_type="CAUSAL_LM"
        )
        rate = {"learning_rate": 2.0e-4}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=out,
            num_train_epochs=given["epochs"],
            seed=given["seed"],
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="epoch",
            save_total_limit=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **rate,
        ),
        train_dataset=data,
        peft_config=adapters,
    )
    began = time.perf_counter()
    # a run that was cut off goes on behind its last epoch
    trainer.train(resume_from_checkpoint=any(Path(out).glob("checkpoint-*")) or None)
    seconds = time.perf_counter() - began
    trainer.save_model(out)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    args = trainer.args
    facts = {
        "epochs": given["epochs"],
        "batch": args.per_device_train_batch_size,
        "rate": args.learning_rate,
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "last_loss": sum(losses[-4:]) / 4,
    }
    (Path(out) / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
