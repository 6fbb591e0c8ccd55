"""A budget that is broken while a job trains stops the job at the end of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.live import BASE, LivePlatform, chats, wait_until
from tests.tiny import make_tiny_model

ROWS, EPOCHS = 40, 20
A_DOLLAR_A_TOKEN = json.dumps({"*": {"training": "1000000"}})


def limit(platform: LivePlatform, cents: int) -> None:
    body = {"currency": "USD", "interval": "month", "threshold_amount": cents}
    platform.patiently("POST", "/v1/organization/spend_limit", body)


def events(platform: LivePlatform, job: str) -> list[dict[str, Any]]:
    path = f"/v1/fine_tuning/jobs/{job}/events?limit=1000"
    found: list[dict[str, Any]] = platform.patiently("GET", path).json["data"]
    return found


@pytest.mark.long
def test_the_job_stops_at_an_epochs_end_with_what_it_learned_and_is_billed_for_that(
    tmp_path: Path,
) -> None:
    make_tiny_model(tmp_path / "models" / BASE, base_id=BASE)
    with LivePlatform(tmp_path, {"AFINA_PRICES": A_DOLLAR_A_TOKEN}) as platform:
        limit(platform, 10**10)
        file = platform.upload(chats(ROWS))
        job = platform.create_job(file, "a", n_epochs=EPOCHS, batch_size=2)
        wait_until("a step", lambda: any(e["type"] == "metrics" for e in events(platform, job)))
        assert platform.job(job)["estimated_finish"] is not None
        limit(platform, 1)
        done = platform.wait_for_job(job)
        assert done["status"] == "failed"
        assert done["error"]["code"] == "exceeded_quota"
        assert done["estimated_finish"] is None
        steps = max(e["data"]["step"] for e in events(platform, job) if e["type"] == "metrics")
        epochs, rest = divmod(steps, ROWS // 2)
        assert rest == 0
        assert 1 <= epochs < EPOCHS
        assert f"after {epochs} of {EPOCHS} epochs" in done["error"]["message"]
        entries = platform.patiently("GET", "/v1/afina/ledger").json["data"]
        assert [e["trained_tokens"] for e in entries] == [done["trained_tokens"]]
        limit(platform, 10**10)
        kept = platform.patiently("GET", f"/v1/fine_tuning/jobs/{job}/checkpoints").json["data"]
        assert next(c["step_number"] for c in kept) == steps
        asked = {"model": kept[0]["fine_tuned_model_checkpoint"], "max_tokens": 3}
        asked["messages"] = [{"role": "user", "content": "what says the fox?"}]
        answer = platform.patiently("POST", "/v1/chat/completions", asked).json
        assert answer["usage"]["completion_tokens"] > 0
        whole = platform.wait_for_job(platform.create_job(file, "b", n_epochs=1, batch_size=2))
        assert done["trained_tokens"] == epochs * whole["trained_tokens"]
