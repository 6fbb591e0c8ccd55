"""What the api says of the engine: metrics for those who manage, and whether a model is resident."""

from __future__ import annotations

from tests.contract.live import BASE, Live


def test_metrics_are_text_for_the_first_key_and_closed_to_strangers(live: Live) -> None:
    found = live.http.get("/metrics")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/plain")
    assert "# TYPE afina_engine_first_token_seconds histogram" in found.text
    assert found.text.endswith("\n")
    assert live.http.get("/metrics", headers={"authorization": "Bearer no"}).status_code == 401


def test_a_model_says_whether_it_is_in_memory(live: Live) -> None:
    found = live.http.get(f"/v1/models/{BASE}").json()
    assert found["afina"]["resident"] in (True, False)
