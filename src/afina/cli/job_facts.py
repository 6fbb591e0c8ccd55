"""What `afina jobs get` shows of a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from afina.cli.terminal import at, in_count, in_time


def of(job: dict[str, Any]) -> dict[str, str]:
    """What is known of a job, by name."""
    extension = job.get("afina") or {}
    facts = {
        "id": job["id"],
        "status": job["status"],
        "base": job["model"],
        "method": (job.get("method") or {}).get("type") or "supervised",
        "tuned model": job["fine_tuned_model"] or "–",
        "training file": job["training_file"],
        "validation file": job["validation_file"] or "–",
        "created": at(job["created_at"]),
        "finished": at(job["finished_at"]),
        "expected": at(job.get("estimated_finish")),
        "trained tokens": in_count(job["trained_tokens"]),
        "results": ", ".join(job["result_files"]) or "–",
        "seed": str(job["seed"]),
    }
    for name, value in (job.get("hyperparameters") or {}).items():
        facts[name.replace("_", " ")] = str(value)
    facts |= tuning_facts(extension) | _wish_facts(extension)
    if job.get("user_provided_suffix"):
        facts["suffix"] = job["user_provided_suffix"]
    for name, value in (job.get("metadata") or {}).items():
        facts[f"metadata {name}"] = value
    fault = job.get("error") or {}
    if fault.get("message"):
        facts["error"] = f"{fault['message']} [{fault.get('code')}]"
    return facts


def foresight(events: list[dict[str, Any]]) -> dict[str, str]:
    """What was expected of a job beside what it took, from the event that tells of it."""
    told = next((e["data"] for e in events if "measured" in (e["data"] or {})), None)
    if told is None:
        return {}
    words: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("trained_tokens", "tokens", in_count),
        ("seconds", "time", in_time),
        ("memory_bytes", "memory", lambda size: f"{size / 1e9:.2f} GB"),
    )
    facts = {}
    for name, word, shown in words:
        before, after = told["estimate"][name], told["measured"][name]
        expected = "unknown" if before is None else shown(before)
        facts[f"{word}: expected, taken"] = f"{expected}, {shown(after)}"
    return facts


def tuning_facts(extension: dict[str, Any]) -> dict[str, str]:
    """What is tuned, by the fields of its kind."""
    facts = {}
    if extension.get("parent"):
        facts["continues"] = extension["parent"]
    for name, value in (extension.get("tuning") or {}).items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        facts["tuning" if name == "kind" else name.replace("_", " ")] = shown
    return facts


def _wish_facts(extension: dict[str, Any]) -> dict[str, str]:
    """How the job ends: what was asked of its validation loss and of its gate."""
    facts = {}
    stopping = extension.get("early_stopping")
    if stopping:
        delta = stopping.get("min_delta")
        least = f" by more than {delta:g}" if delta else ""
        n = stopping["patience"]
        facts["early stopping"] = f"{n} epoch{'' if n == 1 else 's'} without a fall{least}"
    if extension.get("best_checkpoint"):
        facts["best checkpoint"] = "yes"
    if extension.get("gate"):
        facts["gate"] = f"{extension['gate']['policy']}, suite {extension['gate']['suite']}"
    return facts
