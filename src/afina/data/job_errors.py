"""A report as the error of a job, in the words that OpenAI's clients know."""

from __future__ import annotations

from typing import Literal

from afina.data.check import CheckReport
from afina.domain.jobs import JobError


def job_error(
    report: CheckReport, which: Literal["training_file", "validation_file"]
) -> JobError | None:
    """Why a job with this file fails, or None where it does not."""
    raise NotImplementedError
