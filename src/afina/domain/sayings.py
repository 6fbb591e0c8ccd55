"""What the platform says of a job, by name and values: each reader hears it in their language.

`ENGLISH` holds the words of the wire API, and is the only place where they are written: whoever
says something makes a `Said` and stores it beside its text. The pages have the same names in other
languages; a test holds the two tables together. Values are plain: text, or a number that a skin
writes as its language does (a name that ends with `_s` is seconds, with `_bytes` bytes, with
`_share` a share of one, with `_nats` a loss; `rule` is the name of a rule, and `why` what it means
in English, which pages say in their own words; `file` is one of `training` and `validation`, `what`
a property of a machine). Of `one|many` `n` chooses the form. Where a sentence ends with a colon,
those that follow it say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Value = str | int | float

ENGLISH: Final[Mapping[str, str]] = {
    "created": "Created fine-tuning job: {id}",
    "validating": "Validating training file: {id}",
    "validating_two": "Validating training file: {id} and validation file: {other}",
    "warned": "The check of the {file} file warns:",
    "warned_file": "{rule}: {why}",
    "warned_line": "{rule} (line {line}): {why}",
    "warned_lines": "{n} × {rule} (lines {lines}): {why}",
    "not_all_compared": "so many rows look alike that copies may have been missed",
    "moderated": "Moderation of the {file} file: {n} of {rows} rows flagged",
    "moderated_found": "Moderation of the {file} file: {n} of {rows} rows flagged ({found})",
    "flagged_lines": "line {lines}|lines {lines}",
    "unmoderated": "The {file} file was not moderated:",
    "waits_for_moderator": "The {file} file waits for moderation:",
    "no_moderator": "There is no model for moderation and embeddings on this machine.",
    "left_out": "{n} row left out|{n} rows left out",
    "flagged_stay": "{n} flagged row stays and is trained on: drop or mend it, or set "
    "{setting} to quarantine|{n} flagged rows stay and are trained on: drop or mend them, "
    "or set {setting} to quarantine",
    "flagged_stay_valid": "{n} flagged row stays and is measured with: drop or mend it, or set "
    "{setting} to quarantine|{n} flagged rows stay and are measured with: drop or mend "
    "them, or set {setting} to quarantine",
    "redacted": "Redacted {found} in {n} of {rows} rows of the {file} file",
    "redacted_none": "Redacted nothing in {n} of {rows} rows of the {file} file",
    "queued": "Files validated, moving job to queued state",
    "started": "Fine-tuning job started",
    "cancel_wished": "Cancellation requested; the job stops at its next step",
    "cancelled": "The job was cancelled",
    "pause_wished": "Pause requested; the job stops at its next step",
    "paused": "The job was paused",
    "paused_at": "The job was paused at step {step} with Snapshot ID: {id}",
    "waits_for_gate": "it answers when the gate has passed what the job brings in the end",
    "resumed": "The job was resumed, moving job to queued state",
    "checkpoint": "Checkpoint created at step {step} with Snapshot ID: {id}",
    "model": "New fine-tuned model created: {id}",
    "stopped_early": "Stopped early after epoch {epoch} of {all}: for {n} epoch the validation "
    "loss has not fallen as early_stopping asks; its lowest is {lowest_nats:.2f}, after "
    "epoch {best}|"
    "Stopped early after epoch {epoch} of {all}: for {n} epochs the validation loss has not "
    "fallen as early_stopping asks; its lowest is {lowest_nats:.2f}, after epoch {best}",
    "best_taken": "Of the epochs, that which ended at step {step} becomes the model: its "
    "validation loss of {lowest_nats:.2f} is the lowest",
    "done": "The job has successfully completed",
    "waiting_engine": "Waiting for the engine to check the tuned model",
    "cleared": "The checkpoints of the run were removed to make room; its models stay",
    "foreseen_tokens": "Estimate and truth: {expected:,} trained tokens expected, {came:,} came",
    "foreseen_time": "training alone: {expected_s:,.0f} s expected, {took_s:,.0f} s measured",
    "unforeseen_time": "training alone: {took_s:,.0f} s, nobody knew before",
    "foreseen_memory": "memory: {expected_bytes} expected, {took_bytes} measured",
    "unforeseen_memory": "memory: {took_bytes}, nobody knew before",
    "gate_passed": "The gate passed {id}",
    "held_by_hand": "it stays held, as it was held by hand",
    "gate_asked": "The gate measures {id} again",
    "gate_holds": "The gate held back {id}:",
    "gate_finds": "The gate finds fault with {id}:",
    "gate_unsafe": "The gate could not measure the safety of {id}:",
    "gate_unsafe_holds": "The gate could not measure the safety of {id} and holds it back:",
    "gate_unrun": "The gate of {id} could not be run:",
    "loss_rose": "the loss on {file} rows rose by {rise_nats:.2f} nats a token over the base's "
    "(limit {limit_nats:g})",
    "abilities_gone": "{n} of {all} abilities of the base is gone (limit {limit_share:.0%})|"
    "{n} of {all} abilities of the base are gone (limit {limit_share:.0%})",
    "abilities_told": "{n} of {all} abilities of the base is gone; that is told and holds no "
    "model, as gate.max_ability_loss is {limit:g}|"
    "{n} of {all} abilities of the base are gone; that is told and holds no "
    "model, as gate.max_ability_loss is {limit:g}",
    "harm_asked_rose": "harmful answers to harmful prompts rose from {before_share:.0%} to "
    "{after_share:.0%} (limit {limit_share:.0%} more, for sure)",
    "harm_unasked_rose": "harmful answers to harmless prompts rose from {before_share:.0%} to "
    "{after_share:.0%} (limit {limit_share:.0%} more, for sure)",
    "refusals_rose": "refused harmless questions rose from {before_share:.0%} to "
    "{after_share:.0%} (limit {limit_share:.0%} more, for sure)",
    "memorised": "{found_share:.0%} of training answers come back word for word "
    "(limit {limit_share:.0%})",
    "no_time": "there was no time to ask enough",
    "rows_gone": "the rows that it was tuned on are not on this machine any more",
    "no_judge": "there is no moderation model here to judge answers",
    "no_rows": "there was no row, or no time to measure",
    "no_long_answers": "there was no answer long enough, or no time to ask",
    "safe": "Moderation checks for {id} passed",
    "unsafe": "Moderation checks for {id} failed",
    "abilities": "{n} of {all} abilities of the base is gone; gate.max_ability_loss can hold such "
    "a model|{n} of {all} abilities of the base are gone; gate.max_ability_loss can hold such "
    "a model",
    "wandb_written": "Weights & Biases: the run is written, `wandb sync` sends it ({folder})",
    "wandb_run": "Weights & Biases run: {url}",
    "mlflow_run": "MLflow run: {url}",
    "tracker_waits": "The integration could not tell {place}, and tries again: {reason}",
    "tracker_given_up": "The integration was given up; {place} was not told all: {reason}",
    "bins_planned": "Free memory holds bins of at most {n:.0f} tokens; the run was made for "
    "{all:.0f}. The batch size and what is learned stay the same.",
    "bins_halved": "Memory ran out in step {step}: bins have at most {n:.0f} tokens from now on, "
    "in place of {before:.0f}. The batch size and what is learned stay the same; in bf16 the last "
    "digits may differ from a run without this.",
    "bins_halved_before": "Memory ran out before: bins have at most {n:.0f} tokens. The batch size "
    "and what is learned stay the same; in bf16 the last digits may differ from a run without "
    "this.",
    "no_room_for_outputs": "The disk has too little room to keep what the frozen layers compute; "
    "every epoch computes it again.",
    "elsewhere": "Resumed at step {step} where results may differ:",
    "changed": "{what} {before} then, {now} now",
    "words": "{text}",
}
"""Sentences of events, of the gate's report and of trainers. Where several make one text, `; `
stands between them. `words` are somebody else's, as they came."""

FAULTS: Final = frozenset(
    {"row", "rows", "too_few", "file_gone", "flagged", "spent", "crashed", "crashed_at", "killed"}
)
"""Sentences on why a job failed. The wire has its own words for them, in `JobError.message`."""


@dataclass(frozen=True)
class Said:
    """One sentence, by its name and with what fills it in."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence in the words of the wire API."""
        shown = {
            name: gigabytes(value) if name.endswith("_bytes") else value
            for name, value in self.values.items()
        }
        return form_for(ENGLISH[self.name], self.values.get("n")).format(**shown)


def form_for(text: str, n: object) -> str:
    """Of `one|many` the form for so many; a text without forms as it is."""
    one, bar, many = text.partition("|")
    return many if bar and n not in (1, "1") else one


def say(name: str, **values: Value) -> Said:
    """A sentence by its name. Raises KeyError for one that nobody knows."""
    if name not in ENGLISH and name not in FAULTS:
        raise KeyError(name)
    return Said(name, values)


def text_of(said: Sequence[Said]) -> str:
    """Several sentences as one text."""
    return joined([one.text for one in said])


def joined(sentences: Sequence[str]) -> str:
    """Sentences as one text, whatever their language."""
    text = ""
    for one in sentences:
        text += ("" if not text else " " if text.endswith(":") else "; ") + one
    return text


def gigabytes(value: Value) -> str:
    """Bytes as `1.25 GB`."""
    return f"{float(value) / 1e9:.2f} GB"
