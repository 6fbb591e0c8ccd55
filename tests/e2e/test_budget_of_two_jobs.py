"""Two jobs of one budget: what the first may still cost is held, through a kill of its worker, and
is free again in the moment in which the job is billed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.live import BASE, LivePlatform, chats, wait_until
from tests.tiny import make_tiny_model

A_DOLLAR_A_TOKEN = json.dumps({"*": {"training": "1000000"}})
LEASES = {"AFINA_WORKER__LEASE_S": "3", "AFINA_WORKER__HEARTBEAT_S": "0.5"}


def limit(platform: LivePlatform, dollars: int) -> None:
    body = {"currency": "USD", "interval": "month", "threshold_amount": dollars * 100}
    platform.patiently("POST", "/v1/organization/spend_limit", body)


@pytest.mark.long
def test_a_job_that_runs_holds_its_money_though_its_worker_is_killed(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / BASE, base_id=BASE)
    with LivePlatform(tmp_path, {"AFINA_PRICES": A_DOLLAR_A_TOKEN, **LEASES}) as platform:
        file = platform.upload(chats(12))
        probe = platform.wait_for_job(platform.create_job(file, "probe", n_epochs=1))
        cost = probe["trained_tokens"]
        # Room for six epochs beside the probe, and for five of them after the first job.
        limit(platform, 7 * cost)
        first = platform.create_job(file, "first", n_epochs=5, batch_size=2)
        wait_until("a step", lambda: platform.events(first)[0]["type"] == "metrics")
        platform.kill("worker")
        second = platform.wait_for_job(platform.create_job(file, "second", n_epochs=2))
        assert second["error"]["code"] == "exceeded_quota"
        held = f"with ${5 * cost:.2f} held for jobs that came before it"
        assert held in second["error"]["message"]
        assert platform.wait_for_job(first)["status"] == "succeeded"
        third = platform.wait_for_job(platform.create_job(file, "third", n_epochs=1))
        assert third["status"] == "succeeded"
        entries = platform.patiently("GET", "/v1/afina/ledger").json["data"]
        assert sum(entry["trained_tokens"] for entry in entries) == 7 * cost
