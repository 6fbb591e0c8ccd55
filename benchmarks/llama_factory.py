"""One run of LLaMA-Factory, for the benchmarks beside it: `PYTHON llama_factory.py FOLDER JSON`.

PYTHON is that of an environment of its own (its requirements contradict ours). To make one, on a
machine without a GPU:

    python3 -m venv lf
    lf/bin/pip install torch==2.13.0       # a build for processors, where one is at hand
    lf/bin/pip install llamafactory==0.9.5
    lf/bin/pip uninstall -y torchvision torchaudio
    touch "$(echo lf/lib/python3*/site-packages)/torchaudio.py"

The last two lines: torchvision and torchaudio are built for another torch; it does without the one
and looks only whether the other is there. This file imports nothing of afina. FOLDER holds
chats.json, a list of {"messages": [...]}; the JSON is the arguments that are not the same for all.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

ROLES = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def arguments(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What its page on training shows, with what makes it fastest here: no gradient
    checkpointing, and bf16 unless it is told otherwise."""
    return {
        "stage": "sft",
        "do_train": True,
        "dataset_dir": str(folder),
        "dataset": "chats",
        "template": "smollm2",
        "cutoff_len": 4096,
        "output_dir": str(folder / "out"),
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": True,
        "use_cpu": True,
        "disable_gradient_checkpointing": True,
        "disable_tqdm": True,
        **given,
    }


def main() -> None:
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from llamafactory.train.tuner import run_exp  # type: ignore[import-not-found]

    torch.set_num_threads(given.pop("threads"))
    info = {"file_name": "chats.json", "formatting": "sharegpt", "tags": ROLES}
    info["columns"] = {"messages": "messages"}
    (folder / "dataset_info.json").write_text(json.dumps({"chats": info}))
    run_exp(arguments(folder, given))
    state = json.loads((folder / "out" / "trainer_state.json").read_text())
    found = json.loads((folder / "out" / "train_results.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {
        "seconds": found["train_runtime"],
        "peak_rss_mib": peak,
        "last_loss": losses[-1],
        "losses": losses,
    }
    print("MEASURED " + json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
