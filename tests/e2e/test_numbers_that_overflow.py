"""A job whose numbers overflow fails by the name of its step, with what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.live import BASE, LivePlatform, chats
from tests.tiny import make_tiny_model, spoil


@pytest.mark.long
def test_a_job_on_a_base_that_gives_no_numbers_fails_by_its_step_and_is_not_billed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "models" / BASE
    make_tiny_model(folder, base_id=BASE)
    spoil(folder)
    with LivePlatform(tmp_path) as platform:
        job = platform.create_job(platform.upload(chats(10)), "a", n_epochs=2, batch_size=2)
        done = platform.wait_for_job(job)
        assert done["status"] == "failed"
        assert done["fine_tuned_model"] is None
        assert done["error"]["code"] == "not_finite"
        assert done["error"]["message"].startswith("The loss of step 1 is not a finite number.")
        assert "the base model itself" in done["error"]["message"]
        assert not [e for e in platform.events(job) if e["type"] == "metrics"]
        assert platform.patiently("GET", "/v1/afina/ledger").json["data"] == []
