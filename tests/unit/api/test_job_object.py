"""What a job shows of itself on the wire."""

from __future__ import annotations

import pytest

from afina.api.answers import job_object
from afina.domain.accounts import Caller
from afina.domain.jobs import Job, JobStatus, Wish

CALLER = Caller("proj_1", "key_1", "org-1")


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (JobStatus.RUNNING, "pause"),
        (JobStatus.SUCCEEDED, None),
        (JobStatus.FAILED, None),
        (JobStatus.CANCELLED, None),
    ],
)
def test_a_job_that_is_over_shows_no_wish(status: JobStatus, shown: str | None) -> None:
    job = Job("ftjob-1", "proj_1", status, 1, "base", "base", "file-1", 1, wish=Wish.PAUSE)
    assert job_object(job, CALLER)["afina"]["wish"] == shown
