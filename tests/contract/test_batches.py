"""Batches by the official client: each custom_id once, whatever happens on the way."""

from __future__ import annotations

import json
import threading
from typing import Any, Literal

import openai
import pytest
from openai.types import Batch, ModerationCreateResponse
from openai.types.chat import ChatCompletion
from sqlalchemy import update
from tests.contract.live import BASE, Live
from tests.platforms import first_caller

from afina.domain.ledger import EntryKind
from afina.errors import EngineFailed, InvalidRequest, Overloaded
from afina.pipeline.batches import BatchLane
from afina.service.batches import OFFERED
from afina.service.usage import list_ledger, record_inference, usage_tag
from afina.serving.protocol import Generate, UsageRecord
from afina.serving.testing import Script
from afina.store.wire_tables import BATCHES

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MODERATION: Literal["/v1/moderations"] = "/v1/moderations"


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": BASE, "messages": [{"role": "user", "content": f"number {number}"}]}
    asked = {"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": body}
    return asked | changes


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    text = "\n".join(json.dumps(item) for item in lines) + "\n"
    return client.files.create(file=("batch.jsonl", text.encode()), purpose="batch").id


def create(client: openai.OpenAI, lines: list[Any], **more: Any) -> Batch:
    made = client.batches.create(
        input_file_id=upload(client, lines), endpoint=CHAT, completion_window="24h", **more
    )
    return Batch.model_validate(made.model_dump())


def work(live: Live, stop: threading.Event | None = None) -> bool:
    stopping = (stop or threading.Event()).is_set
    return BatchLane(live.platform, "host|1|1|test", stopping).work()


def finished(client: openai.OpenAI, batch: Batch) -> Batch:
    return Batch.model_validate(client.batches.retrieve(batch.id).model_dump())


def results(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def test_a_batch_answers_every_line_once(live: Live, client: openai.OpenAI) -> None:
    batch = create(
        client,
        [line(n) for n in range(30)],
        metadata={"why": "test"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (batch.status, batch.metadata) == ("validating", {"why": "test"})
    with pytest.raises(openai.BadRequestError, match="is used by the batch"):
        client.files.delete(batch.input_file_id)
    assert work(live)
    done = finished(client, batch)
    assert done.status == "completed"
    assert done.model == BASE
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (30, 30, 0)
    assert done.error_file_id is None
    assert done.in_progress_at
    assert done.finalizing_at
    assert done.completed_at
    found = results(client, done.output_file_id)
    assert [item["custom_id"] for item in found] == [f"id-{n}" for n in range(30)]
    assert len({item["id"] for item in found}) == 30
    answers = [ChatCompletion.model_validate(item["response"]["body"]) for item in found]
    assert answers[0].choices[0].message.content == "Well met, good friend."
    assert done.usage is not None
    assert done.usage.output_tokens == sum(a.usage.completion_tokens for a in answers if a.usage)
    assert done.usage.input_tokens == sum(a.usage.prompt_tokens for a in answers if a.usage)
    output = client.files.retrieve(done.output_file_id or "")
    assert output.purpose == "batch_output"
    assert output.expires_at == output.created_at + 3600
    assert next(b.id for b in client.batches.list(limit=1)) == batch.id
    assert not work(live)
    client.files.delete(batch.input_file_id)


def test_lines_that_are_refused_stand_in_the_error_file(live: Live, client: openai.OpenAI) -> None:
    def script(request: Generate) -> Script:
        return Script(refusal=InvalidRequest("No.", param="messages"))

    wrong = line(1)
    wrong["body"] = wrong["body"] | {"n_epochz": 1}
    batch = create(client, [line(0), wrong, line(2, body=wrong["body"] | {"messages": []})])
    live.engine.script = script
    assert work(live)
    done = finished(client, batch)
    assert done.status == "completed"
    assert done.output_file_id is None
    found = {item["custom_id"]: item["response"] for item in results(client, done.error_file_id)}
    assert {item["status_code"] for item in found.values()} == {400}
    assert "n_epochz" in found["id-1"]["body"]["error"]["message"]
    assert found["id-0"]["body"]["error"]["message"] == "No."


def test_what_is_busy_or_breaks_once_is_asked_again(live: Live, client: openai.OpenAI) -> None:
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def script(request: Generate) -> Script:
        with lock:
            seen[request.request_id] = seen.get(request.request_id, 0) + 1
            times = seen[request.request_id]
        if times == 1:
            return Script(refusal=Overloaded("The queue is full."))
        if times == 2:
            return Script(failure=EngineFailed("It broke."))
        return Script()

    live.engine.script = script
    batch = create(client, [line(n) for n in range(4)])
    assert work(live)
    assert finished(client, batch).request_counts == batch_counts(4, 4)
    assert sorted(seen.values()) == [3, 3, 3, 3]
    asked = [r for r in live.engine.requests if r.tag.get("batch") == batch.id]
    assert len({(r.request_id, r.seed) for r in asked}) == 4, "a repeated line draws the same"


def batch_counts(total: int, completed: int) -> Any:
    from openai.types.batch_request_counts import BatchRequestCounts

    return BatchRequestCounts(total=total, completed=completed, failed=total - completed)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"prompt": "To be", "max_tokens": 4}),
        ("/v1/responses", {"input": "To be"}),
    ],
)
def test_other_endpoints_are_answered_too(
    live: Live, client: openai.OpenAI, endpoint: Any, body: dict[str, Any]
) -> None:
    lines = [line(n, url=endpoint, body=body | {"model": BASE}) for n in range(3)]
    batch = client.batches.create(
        input_file_id=upload(client, lines), endpoint=endpoint, completion_window="24h"
    )
    assert work(live)
    done = finished(client, batch)
    assert done.error_file_id is None, results(client, done.error_file_id)
    assert len(results(client, done.output_file_id)) == 3
    assert done.usage is not None
    assert done.usage.output_tokens > 0


def test_a_line_for_moderation_need_not_name_a_model(live: Live, client: openai.OpenAI) -> None:
    named = {"model": "omni-moderation-latest"}
    lines = [line(n, url=MODERATION, body={"input": "a b"} | named) for n in range(2)]
    lines.append(line(2, url=MODERATION, body={"input": "a b"}))
    batch = client.batches.create(
        input_file_id=upload(client, lines), endpoint=MODERATION, completion_window="24h"
    )
    assert work(live)
    done = finished(client, batch)
    assert (done.status, done.model) == ("completed", named["model"])
    for result in results(client, done.output_file_id):
        ModerationCreateResponse.model_validate(result["response"]["body"])
    kept = list_ledger(live.platform, first_caller(live.platform), limit=3).data
    assert [(one.kind, one.prompt_tokens) for one in kept] == [(EntryKind.MODERATION, 2)] * 3


FAULTS: list[tuple[str, list[Any], int | None]] = [
    ("duplicate_custom_id", [line(0), line(0)], 2),
    ("mismatched_endpoint", [line(0, url="/v1/completions")], 1),
    ("invalid_method", [line(0, method="GET")], 1),
    ("missing_required_parameter", [line(0), line(1, custom_id=None)], 2),
    ("missing_required_parameter", [line(0, body={"messages": []})], 1),
    ("mismatched_model", [line(0), line(1, body={"model": "other"})], 2),
    ("unknown_parameter", [line(0, metod="POST")], 1),
    ("invalid_value", [line(0, body={"model": BASE, "stream": True})], 1),
]


@pytest.mark.parametrize(("code", "lines", "number"), FAULTS)
def test_an_input_that_cannot_be_used_fails_with_line_numbers(
    live: Live, client: openai.OpenAI, code: str, lines: list[Any], number: int | None
) -> None:
    batch = create(client, lines)
    assert work(live)
    done = finished(client, batch)
    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(e.code, e.line) for e in done.errors.data] == [(code, number)]
    assert not [r for r in live.engine.requests if r.tag.get("batch") == batch.id]


def test_requests_for_batches_are_refused_by_name(live: Live, client: openai.OpenAI) -> None:
    file = upload(client, [line(0)])
    other = client.files.create(file=("a.jsonl", b'{"a": 1}\n'), purpose="user_data").id
    for param, asked in (
        ("input_file_id", {"input_file_id": other}),
        ("endpoint", {"endpoint": "/v1/images/generations"}),
        ("endpoint", {"endpoint": "/v1/nothing"}),
        ("completion_window", {"completion_window": "1h"}),
        (
            "output_expires_after.seconds",
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
        ),
    ):
        given: dict[str, Any] = {
            "input_file_id": file, "endpoint": OFFERED[0], "completion_window": "24h",
        }  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(**(given | asked))
        assert refused.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-unknown", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_unknown")


def test_a_cancelled_batch_keeps_what_is_answered(live: Live, client: openai.OpenAI) -> None:
    hold = threading.Event()

    def script(request: Generate) -> Script:
        # Half of the lines are never answered until the batch is over.
        return Script(hold=None if len(live.engine.requests) % 2 else hold)

    live.engine.script = script
    live.engine.requests.clear()
    batch = create(client, [line(n) for n in range(20)])
    lane = threading.Thread(target=work, args=(live,))
    lane.start()
    for _ in range(2000):
        counts = finished(client, batch).request_counts
        if counts is not None and counts.completed >= 4:
            break
    assert client.batches.cancel(batch.id).status == "cancelling"
    lane.join(30)
    hold.set()
    done = finished(client, batch)
    assert done.status == "cancelled"
    assert done.request_counts is not None
    assert len(results(client, done.output_file_id)) == done.request_counts.completed
    with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
        client.batches.cancel(batch.id)


def test_a_batch_that_was_never_taken_up_is_cancelled_too(
    live: Live, client: openai.OpenAI
) -> None:
    batch = create(client, [line(0)])
    client.batches.cancel(batch.id)
    assert work(live)
    assert finished(client, batch).status == "cancelled"


def test_a_cancelled_batch_is_cancelled_though_its_day_is_over_too(
    live: Live, client: openai.OpenAI
) -> None:
    batch = create(client, [line(0)])
    client.batches.cancel(batch.id)
    with live.platform.database.write() as tx:
        tx.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(expires_at=1))
    assert work(live)
    assert finished(client, batch).status == "cancelled"


def test_after_a_day_what_is_unanswered_is_said_line_by_line(
    live: Live, client: openai.OpenAI
) -> None:
    batch = create(client, [line(n) for n in range(3)])
    with live.platform.database.write() as tx:
        tx.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(expires_at=1))
    assert work(live)
    done = finished(client, batch)
    assert done.status == "expired"
    found = results(client, done.error_file_id)
    assert [item["custom_id"] for item in found] == ["id-0", "id-1", "id-2"]
    assert {item["error"]["code"] for item in found} == {"batch_expired"}


def test_a_worker_that_stops_leaves_the_batch_to_the_next(
    live: Live, client: openai.OpenAI
) -> None:
    stop, hold = threading.Event(), threading.Event()
    live.engine.script = lambda request: Script(hold=hold)
    batch = create(client, [line(n) for n in range(5)])
    lane = threading.Thread(target=work, args=(live, stop))
    lane.start()
    for _ in range(2000):
        if finished(client, batch).status == "in_progress":
            break
    stop.set()
    lane.join(30)
    hold.set()
    live.engine.script = Script()
    assert finished(client, batch).status == "in_progress"
    assert work(live)
    assert len(results(client, finished(client, batch).output_file_id)) == 5


def test_a_line_that_was_broken_off_is_billed_once_and_whole(live: Live) -> None:
    from afina.service.keys import authenticate

    caller = authenticate(live.platform, live.key)
    tag = usage_tag(caller, BASE) | {"batch": "batch_a"}
    broken = UsageRecord("req_line", 1.0, BASE, None, 3, 0, 1, "left", tag)
    whole = UsageRecord("req_line", 2.0, BASE, None, 3, 0, 2, "finished", tag)
    assert record_inference(live.platform, [broken]) == 0
    assert record_inference(live.platform, [whole, whole]) == 1


def test_a_batch_tells_its_webhooks(live: Live, client: openai.OpenAI) -> None:
    from afina.service import webhooks

    endpoint = client.webhooks.create(
        name="a", url="https://example.com/", event_types=["batch.completed", "batch.failed"]
    )
    create(client, [line(0)])
    create(client, [line(0), line(0)])
    assert work(live)
    assert work(live)
    told = live.http.get("/v1/afina/webhook_deliveries").json()["data"]
    assert [d["event_type"] for d in told] == ["batch.failed", "batch.completed"]
    client.webhooks.delete(endpoint.id)
    assert webhooks.claim(live.platform, 10) == []
