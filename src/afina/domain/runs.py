"""A run directory: the contract between the worker and the trainer.

    runs/<job>/spec.json            RunSpec, fully resolved, written by the worker
               control.json         {"wish": null | "cancel" | "pause", "epochs": N}, read at
                                    step boundaries; after N epochs the budget is spent
               events.jsonl         RunEvent a line, appended by the trainer
               checkpoints/step-N/  CheckpointRecord in `record.json`, written last
               attempt-N/log.txt    what the trainer printed
               row_losses.csv       the loss of each row in the first and the last epoch
               result.json          RunResult, written last of all

The trainer is `python -m afina.training runs/<job>`. It reads nothing else than this directory and
the paths in the spec, and answers only with files. It exits with 0 when result.json stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from afina.domain.manifests import TuneKind
from afina.domain.methods import BaseBits, EarlyStopping

SPEC: Final = "spec.json"
CONTROL: Final = "control.json"
EVENTS: Final = "events.jsonl"
RESULT: Final = "result.json"
ROW_LOSSES: Final = "row_losses.csv"
CHECKPOINTS: Final = "checkpoints"
RECORD: Final = "record.json"

RENDERED_AT: Final = "rendered_at"
"""A setting of runs whose template writes the date: the moment it was told, in Unix seconds."""

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class BaseSpec:
    """The base model that the run tunes."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters. `target_modules` are names of linear layers as PEFT spells them."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    rank_stabilised: bool = False
    """Scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)."""

    @property
    def scaling(self) -> float:
        """What the low-rank term is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


@dataclass(frozen=True)
class TuneSpec:
    """What the run tunes. `layers` and what follows are of kind `blocks`."""

    kind: TuneKind = "lora"
    layers: int = 0
    """How many blocks from the top."""
    norm_and_head: bool = False
    keep_frozen_output: bool = True
    """Compute what the frozen blocks say about each row once, and keep it on disk."""
    base_bits: BaseBits = 16
    """What a weight of the frozen base is held in, of kinds `lora` and `dora`; 16 stands for the
    run's precision."""


@dataclass(frozen=True)
class ParentSpec:
    """The tune that the run goes on from: a folder with its files, and their hashes."""

    manifest: str
    path: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class DataSpec:
    """A folder of shards (see afina.data.shards) and what is in it."""

    path: str
    sha256: str
    rows: int
    tokens: int
    """Rendered tokens of all rows, prefixes counted in every row: what is billed an epoch."""
    learned_tokens: int
    longest_row: int


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with linear warm-up and cosine decay to `final_fraction` of the peak."""

    learning_rate: float
    warmup_steps: int
    total_steps: int
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    final_fraction: float = 0.0


@dataclass(frozen=True)
class ParityPrompt:
    """A prompt that the trainer continues and the engine scores."""

    row_sha256: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run depends on. No default is left open: what is here is what happens."""

    format: Literal[1]
    job_id: str
    base: BaseSpec
    lora: LoraSpec
    training: DataSpec
    validation: DataSpec | None
    epochs: int
    batch_size: int
    optimizer: OptimizerSpec
    seed: int
    precision: Precision
    threads: int
    bin_capacities: tuple[int, ...]
    """Sizes of bins in tokens, ascending; a bin takes the smallest that fits."""
    end_tokens: tuple[int, ...]
    """Ids that end an assistant's turn: parity stops there."""
    validation_interval_steps: int = 10
    validation_batch_rows: int = 8
    checkpoints_kept: int = 3
    resume_interval_s: float = 30.0
    """How often a checkpoint for resuming alone is written between those of the epochs."""
    parity_prompts: tuple[ParityPrompt, ...] = ()
    parity_new_tokens: int = 32
    tune: TuneSpec = field(default_factory=TuneSpec)
    method: Literal["supervised", "dpo"] = "supervised"
    """With dpo a shard's rows are pairs: the preferred answer, then the other one."""
    beta: float = 0.0
    parent: ParentSpec | None = None
    processes: int = 1
    """How many share each step, with `threads` threads each."""
    sharded: bool = False
    """Each process keeps a part of weights, gradients and moments; of kind `full` alone."""
    early_stopping: EarlyStopping | None = None
    best_checkpoint: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """Copied into the manifests of the tunes that come out."""

    def units(self, rows: int) -> int:
        """What an epoch through so many rows of shards counts: rows, or pairs of them."""
        return rows // 2 if self.method == "dpo" else rows


@dataclass(frozen=True)
class RunEvent:
    """One line of events.jsonl. `sequence` counts from 1 without gaps over all attempts."""

    sequence: int
    time: float
    kind: Literal["started", "step", "checkpoint", "warning", "finished", "failed", "stopped"]
    data: Mapping[str, Any] = field(default_factory=dict)
    """step: step, total_steps, epoch, train_loss, train_mean_token_accuracy, learning_rate,
    tokens (billed tokens so far), and, when measured, valid_loss, valid_mean_token_accuracy,
    full_valid_loss, full_valid_mean_token_accuracy. checkpoint: step, directory, metrics.
    warning: code, message, said. failed: code, message, remedy."""


@dataclass(frozen=True)
class CheckpointRecord:
    """record.json of a checkpoint. `kind` is `epoch` (kept for the user) or `resume`."""

    format: Literal[1]
    step: int
    epoch: int
    kind: Literal["epoch", "resume"]
    events_bytes: int
    """Length of events.jsonl that belongs to this state; a resume truncates to it."""
    next_sequence: int
    trained_tokens: int
    metrics: Mapping[str, float]
    files: Mapping[str, str]
    """sha256 by file name: adapter_model.safetensors and adapter_config.json (PEFT, as they are
    published), masters.safetensors, optimizer.safetensors, state.json."""
    environment: Mapping[str, str]
    """torch version, processor, threads: what a bit-identical resume depends on."""


@dataclass(frozen=True)
class RunCheckpoint:
    """A kept checkpoint in the result: its step, folder (relative) and metrics."""

    step: int
    directory: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ParityRow:
    """What the trainer saw after reloading the saved adapter: `ids` are the greedy continuation;
    `top_ids` and `top_logprobs` are the 20 best of each position, `logprobs` those of `ids`."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_ids: tuple[tuple[int, ...], ...]
    top_logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RunResult:
    """result.json: the run ended well, or was stopped by a wish with a usable checkpoint, or at an
    epoch's end (`spent`) because its budget has no further one."""

    format: Literal[1]
    outcome: Literal["succeeded", "cancelled", "paused", "spent"]
    steps: int
    trained_tokens: int
    learned_tokens: int
    train_seconds: float
    tokens_per_second: float
    peak_rss_bytes: int
    checkpoints: tuple[RunCheckpoint, ...]
    """Kept epoch checkpoints, oldest first; the last one is the tuned model, and with
    `best_checkpoint` the best one stands last. Of a paused run the state it was paused in."""
    parity: tuple[ParityRow, ...]
    precision: Precision
    stopped_early: bool = False


@dataclass(frozen=True)
class RunPaths:
    """The names in a run directory, in one place."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / SPEC

    @property
    def control(self) -> Path:
        return self.root / CONTROL

    @property
    def events(self) -> Path:
        return self.root / EVENTS

    @property
    def result(self) -> Path:
        return self.root / RESULT

    @property
    def row_losses(self) -> Path:
        return self.root / ROW_LOSSES

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS

    def attempt(self, number: int) -> Path:
        return self.root / f"attempt-{number}"
