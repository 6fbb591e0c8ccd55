"""Who will serve a job's tune, asked before it is trained: a vLLM server serves LoRA adapters
alone, and hours of training should not end in a refusal."""

from __future__ import annotations

from typing import Final

from afina.domain.jobs import Job, JobError
from afina.errors import AfinaError
from afina.serving.client import BlockingEngineClient
from afina.settings import Settings

PATIENCE_S: Final = 5.0


def refusal(settings: Settings, job: Job) -> JobError | None:
    """Why the tune could not be served; None where it can, or where nobody knows now."""
    kind = job.extension.tuning.kind
    if settings.engine.vllm is None or kind == "lora":
        return None
    try:
        health = BlockingEngineClient(settings.engine_socket, timeout_s=PATIENCE_S).health()
    except AfinaError:
        return None  # the tune is asked for again before it is published
    server = health.elsewhere.get(job.model)
    if server is None:
        return None
    return JobError(
        "model_not_available",
        f"{job.model} is answered for by {server}, which serves LoRA adapters alone, and this job "
        f"tunes by {kind!r}. Tune with LoRA, or let afina's own engine answer for the base: leave "
        "it out of AFINA_ENGINE__VLLM__MODELS.",
    )
