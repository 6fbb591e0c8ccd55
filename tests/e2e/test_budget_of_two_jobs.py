"""Two jobs of one budget: what the first may still cost is held, through a kill of its worker, and
is free again in the moment in which the job is billed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.live import BASE, LivePlatform, chats, wait_until
from tests.tiny import make_tiny_model

A_DOLLAR_A_TOKEN = json.dumps({"*": {"training": "1000000"}})
EPOCHS = 8
LEASES = {"AFINA_WORKER__LEASE_S": "3", "AFINA_WORKER__HEARTBEAT_S": "0.5"}


def limit(platform: LivePlatform, dollars: int) -> None:
    body = {"currency": "USD", "interval": "month", "threshold_amount": dollars * 100}
    platform.patiently("POST", "/v1/organization/spend_limit", body)


@pytest.mark.slow
def test_a_job_that_runs_holds_its_money_though_its_worker_is_killed(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / BASE, base_id=BASE)
    with LivePlatform(tmp_path, {"AFINA_PRICES": A_DOLLAR_A_TOKEN, **LEASES}) as platform:
        file = platform.upload(chats(40))
        probe = platform.wait_for_job(platform.create_job(file, "probe", n_epochs=1))
        cost = probe["trained_tokens"]
        # Room for the first job and one epoch more beside what the probe cost.
        limit(platform, (EPOCHS + 2) * cost)
        first = platform.create_job(file, "first", n_epochs=EPOCHS, batch_size=2)
        wait_until("a step", lambda: "metrics" in {e["type"] for e in platform.events(first)})
        ended = wait_until("there is a trainer", lambda: platform.process("trainer"))
        platform.kill("worker")
        ended.wait(30)  # it goes with its worker
        trainer = wait_until("there is a trainer again", lambda: platform.process("trainer"))
        trainer.suspend()  # so that the first job is not over before the second is weighed
        second = platform.wait_for_job(platform.create_job(file, "second", n_epochs=2))
        trainer.resume()
        assert second["error"]["code"] == "exceeded_quota"
        held = f"with ${EPOCHS * cost:.2f} held for jobs that came before it"
        assert held in second["error"]["message"]
        assert platform.wait_for_job(first)["status"] == "succeeded"
        third = platform.wait_for_job(platform.create_job(file, "third", n_epochs=1))
        assert third["status"] == "succeeded"
        entries = platform.patiently("GET", "/v1/afina/ledger").json["data"]
        assert sum(entry["trained_tokens"] for entry in entries) == (EPOCHS + 2) * cost
