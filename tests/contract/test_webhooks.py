"""Webhooks: endpoints by the official client, deliveries that its own verifier accepts."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.webhooks import (
    DeletedWebhookEndpoint,
    WebhookEndpoint,
    WebhookEndpointTestResult,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
)
from tests.contract.live import BASE, Live, settings_for
from tests.platforms import first_caller

from afina.domain.webhooks import EVENT_TYPES, GIVE_UP_S
from afina.errors import Offline
from afina.pipeline.deliveries import DeliveryLane
from afina.service import webhooks as service
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import webhooks
from afina.store.wire_tables import WEBHOOK_DELIVERIES

ROW = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}\n'


@dataclass
class Receiver:
    """A receiver that answers with the statuses it is told to, then 200."""

    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(
        tmp_path_factory.mktemp("data"), webhooks={"allow_private": True, "timeout_s": 5}
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.got.append((headers, self.rfile.read(length)))
            self.send_response(told.statuses.pop(0) if told.statuses else 200)
            self.send_header("location", "http://169.254.169.254/")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}/hook?a=1"
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0) as client:
        yield client
        for endpoint in client.webhooks.list():
            client.webhooks.delete(endpoint.id)


def endpoint(client: openai.OpenAI, url: str, *types: Any) -> WebhookEndpointWithSecret:
    wanted = types or ("fine_tuning.job.cancelled",)
    made = client.webhooks.create(name="mine", url=url, event_types=list(wanted))
    return WebhookEndpointWithSecret.model_validate(made.model_dump())


def cancelled_job(client: openai.OpenAI) -> str:
    file = client.files.create(file=("a.jsonl", ROW * 10), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    return client.fine_tuning.jobs.cancel(job.id).id


def deliver(platform: Platform) -> bool:
    """A round of the worker's lane, with every pause over."""
    with platform.database.write() as tx:
        tx.execute(WEBHOOK_DELIVERIES.update().values(available_at=0.0))
    return DeliveryLane(platform).work()


def test_endpoints_are_made_read_changed_and_deleted(client: openai.OpenAI) -> None:
    made = endpoint(client, "http://127.0.0.1:1/hook")
    assert made.signing_secret.startswith("whsec_")
    got = client.webhooks.retrieve(made.id)
    WebhookEndpoint.model_validate(got.model_dump())
    assert "signing_secret" not in (got.model_extra or {})
    assert got.signing_secret_hint is not None
    assert got.signing_secret_hint.endswith(made.signing_secret[-4:])
    changed = client.webhooks.update(made.id, name="yours", event_types=["batch.completed"])
    assert (changed.name, changed.event_types) == ("yours", ["batch.completed"])
    assert changed.url == made.url
    second = endpoint(client, "http://127.0.0.1:1/hook")
    assert [e.id for e in client.webhooks.list(limit=1)] == [second.id, made.id]
    gone = client.webhooks.delete(made.id)
    DeletedWebhookEndpoint.model_validate(gone.model_dump())
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)
    types = client.webhooks.event_types.list()
    WebhookEventTypeList.model_validate(types.model_dump())
    assert types.data == list(EVENT_TYPES)


def test_events_that_never_happen_here_are_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"video\.completed"):
        endpoint(client, "http://127.0.0.1:1/hook", "video.completed")
    with pytest.raises(openai.BadRequestError):
        client.webhooks.create(name="a", url="ftp://example.com", event_types=["batch.failed"])


def test_a_delivery_is_what_the_client_unwraps(
    live: Live, client: openai.OpenAI, receiver: Receiver
) -> None:
    made = endpoint(client, receiver.url)
    job_id = cancelled_job(client)
    assert deliver(live.platform)
    ((headers, body),) = receiver.got
    event = client.webhooks.unwrap(body, headers, secret=made.signing_secret)
    assert event.type == "fine_tuning.job.cancelled"
    assert event.data.id == job_id
    assert event.object == "event"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers, secret=made.signing_secret)
    assert not deliver(live.platform)


def test_after_a_rotation_both_secrets_open_for_a_day_if_wanted(
    live: Live, client: openai.OpenAI, receiver: Receiver
) -> None:
    made = endpoint(client, receiver.url)
    second = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    result = client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
    WebhookEndpointTestResult.model_validate(result.model_dump())
    assert result.status_code == 200
    headers, body = receiver.got.pop()
    for secret in (made.signing_secret, second.signing_secret):
        assert client.webhooks.unwrap(body, headers, secret=secret).type == result.event_type
    third = client.webhooks.rotate_secret(made.id)
    client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
    headers, body = receiver.got.pop()
    client.webhooks.unwrap(body, headers, secret=third.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret=second.signing_secret)


def test_what_fails_comes_again_under_the_same_id_until_it_is_taken(
    live: Live, client: openai.OpenAI, receiver: Receiver
) -> None:
    endpoint(client, receiver.url)
    cancelled_job(client)
    receiver.statuses = [500, 302, 404]
    for _ in range(4):
        assert deliver(live.platform)
    assert not deliver(live.platform)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    told = live.http.get("/v1/afina/webhook_deliveries").json()["data"][0]
    assert (told["state"], told["attempts"], told["status_code"]) == ("delivered", 4, 200)


def test_a_receiver_that_is_gone_is_switched_off_and_can_be_switched_on(
    live: Live, client: openai.OpenAI, receiver: Receiver
) -> None:
    made = endpoint(client, receiver.url)
    cancelled_job(client)
    receiver.statuses = [410]
    deliver(live.platform)
    assert live.http.get(f"/v1/webhook_endpoints/{made.id}").json()["afina"]["disabled_at"]
    cancelled_job(client)
    assert not deliver(live.platform)
    dead = live.http.get("/v1/afina/webhook_deliveries?state=dead").json()["data"]
    again = f"/v1/afina/webhook_deliveries/{dead[0]['id']}/redeliver"
    assert live.http.post(again).status_code == 409
    client.webhooks.update(made.id, url=receiver.url)
    assert live.http.post(again).json()["state"] == "pending"
    deliver(live.platform)
    assert len(receiver.got) == 2


def test_what_nobody_takes_for_three_days_is_a_dead_letter(
    live: Live, client: openai.OpenAI
) -> None:
    made = endpoint(client, "http://127.0.0.1:1/nobody")
    cancelled_job(client)
    deliver(live.platform)
    failing = live.http.get(f"/v1/webhook_endpoints/{made.id}").json()["afina"]["failing_since"]
    assert failing
    with live.platform.database.write() as tx:
        early = failing - GIVE_UP_S - 1
        webhooks.update_endpoint(tx, made.id, failing_since=early)
        tx.execute(WEBHOOK_DELIVERIES.update().values(created_at=early))
    deliver(live.platform)
    dead = live.http.get("/v1/afina/webhook_deliveries?state=dead").json()["data"][0]
    assert dead["webhook_endpoint_id"] == made.id
    assert "could not be asked" in dead["last_error"]
    assert live.http.get(f"/v1/webhook_endpoints/{made.id}").json()["afina"]["disabled_at"]


def test_a_retried_create_makes_one_endpoint(live: Live, client: openai.OpenAI) -> None:
    body = {"name": "a", "url": "http://127.0.0.1:1/", "event_types": ["batch.failed"]}
    first = live.http.post("/v1/webhook_endpoints", json=body).json()
    again = {"x-stainless-retry-count": "2"}
    assert live.http.post("/v1/webhook_endpoints", json=body, headers=again).json() == first


def test_secrets_stand_in_no_log(
    live: Live, client: openai.OpenAI, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    made = endpoint(client, receiver.url)
    cancelled_job(client)
    deliver(live.platform)
    told = capsys.readouterr()
    assert made.signing_secret not in told.out + told.err


def test_private_receivers_are_refused_unless_a_setting_allows(tmp_path: Path) -> None:
    from tests.contract.live import running

    with running(settings_for(tmp_path)) as live:
        for url in ("https://127.0.0.1/a", "https://localhost/a", "http://example.com/"):
            body = {"name": "a", "url": url, "event_types": ["batch.failed"]}
            refused = live.http.post("/v1/webhook_endpoints", json=body)
            assert refused.status_code == 400
            assert json.loads(refused.content)["error"]["param"] == "url"


def test_offline_refuses_endpoints_and_lets_deliveries_wait(
    live: Live, client: openai.OpenAI, receiver: Receiver
) -> None:
    endpoint = client.webhooks.create(
        name="w", url=receiver.url, event_types=["fine_tuning.job.succeeded"]
    )
    settings = live.platform.settings.model_copy(update={"offline": True})
    offline = replace(live.platform, settings=settings)
    caller = first_caller(offline)
    with offline.database.write() as tx:
        assert service.emit(offline, tx, caller.project_id, "fine_tuning.job.succeeded", "j")
    assert service.claim(offline, 8) == []
    asked = service.EndpointChanges("w", receiver.url, ["fine_tuning.job.succeeded"])
    with pytest.raises(Offline, match="the setting offline is on"):
        service.create_endpoint(offline, caller, asked)
    with pytest.raises(Offline):
        service.send_test(offline, caller, endpoint.id, "fine_tuning.job.succeeded")
    assert receiver.got == []
    due = service.claim(live.platform, 100)
    assert endpoint.id in {delivery.endpoint_id for delivery in due}
    client.webhooks.delete(endpoint.id)
