"""Counts that must come out exactly, whatever dies on the way: one job for a hundred creates, every
event at least once, every token in the ledger once."""

from __future__ import annotations

import http.server
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import openai
import pytest
from tests.contract.live import BASE, Live, running, settings_for
from tests.platforms import ROW, first_caller, open_platform

from afina.domain.webhooks import Delivery, DeliveryState
from afina.pipeline.journal import JournalDrain
from afina.service import webhooks
from afina.service.platform import Platform
from afina.service.usage import list_ledger, record_inference
from afina.store.wire_tables import WEBHOOK_DELIVERIES

CREATES = 100
EVENTS = 200
ANSWERS = 200


def test_a_hundred_parallel_creates_under_one_key_are_one_job_after_a_restart_too(
    tmp_path: Path,
) -> None:
    settings = settings_for(tmp_path)
    headers = {"idempotency-key": "the same one"}
    with running(settings) as live:
        sent = live.http.post(
            "/v1/files", files={"file": ("a.jsonl", ROW * 10)}, data={"purpose": "fine-tune"}
        )
        body = {"model": BASE, "training_file": sent.json()["id"]}

        def create(_: int) -> httpx2.Response:
            return live.http.post("/v1/fine_tuning/jobs", json=body, headers=headers, timeout=60)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(create, range(CREATES)))
        assert Counter(answer.status_code for answer in answers) == {200: CREATES}
        assert len({answer.content for answer in answers}) == 1
    with running(settings) as live:
        again = live.http.post("/v1/fine_tuning/jobs", json=body, headers=headers)
        assert again.content == answers[0].content
        other = live.http.post("/v1/fine_tuning/jobs", json=body | {"seed": 1}, headers=headers)
        assert other.status_code == 400
        assert len(live.http.get("/v1/fine_tuning/jobs").json()["data"]) == 1


class Died(BaseException):
    """A worker's death, as the code sees it: nothing after it runs."""


class Awkward(http.server.BaseHTTPRequestHandler):
    """Answers as its chance has it: takes the event, refuses it, sends elsewhere, hangs up, talks
    without end, or is too slow."""

    chance = random.Random(18)
    taken: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()
    never = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        mark = self.headers["webhook-id"]
        with self.lock:
            what = self.chance.choices(
                ("take", "fail", "elsewhere", "hang up", "talk", "slow"), (60, 15, 10, 8, 6, 1)
            )[0]
            self.taken[mark] += what in ("take", "talk")
        if what == "hang up":
            self.close_connection = True
            return
        if what == "slow":
            self.never.wait(1.0)
            self.close_connection = True
            return
        self.send_response({"fail": 503, "elsewhere": 302}.get(what, 200))
        self.send_header("location", "http://169.254.169.254/latest/meta-data/")
        self.end_headers()
        if what == "talk":
            try:
                self.wfile.write(b"x" * 2_000_000)
            except OSError:
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def awkward() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Awkward)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    server.shutdown()
    server.server_close()
    thread.join()


def deliveries(platform: Platform) -> list[Any]:
    with platform.database.read() as tx:
        return list(tx.execute(WEBHOOK_DELIVERIES.select()).all())


def test_two_hundred_events_reach_an_awkward_receiver_at_least_once_whoever_dies(
    awkward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = open_platform(tmp_path, webhooks={"allow_private": True, "timeout_s": 0.5})
    caller = first_caller(platform)
    changes = webhooks.EndpointChanges("mine", awkward, ["batch.completed"])
    webhooks.create_endpoint(platform, caller, changes)
    with platform.database.write() as tx:
        for number in range(EVENTS):
            webhooks.emit(platform, tx, caller.project_id, "batch.completed", f"batch_{number}")
    chance = random.Random(81)
    note = webhooks._note_success
    deaths = Counter[str]()

    def dying(*given: Any) -> None:
        if chance.random() < 0.1:
            raise Died
        note(*given)

    monkeypatch.setattr(webhooks, "_note_success", dying)

    def one(delivery: Delivery) -> None:
        if chance.random() < 0.05:
            deaths["before it was sent"] += 1
            return
        try:
            webhooks.carry_out(platform, delivery)
        except Died:
            deaths["before it was noted"] += 1

    for _ in range(100):
        with platform.database.write() as tx:
            tx.execute(WEBHOOK_DELIVERIES.update().values(available_at=0.0))
        due = webhooks.claim(platform, 50)
        if not due:
            break
        for delivery in due:
            one(delivery)
    found = deliveries(platform)
    assert Counter(row.state for row in found) == {DeliveryState.DELIVERED.value: EVENTS}
    assert set(Awkward.taken) == {row.id for row in found}, "one webhook-id an event, for ever"
    assert min(Awkward.taken.values()) >= 1
    extra = sum(Awkward.taken.values()) - EVENTS
    assert extra >= deaths["before it was noted"] > 0, "again only after a death, or an answer late"
    assert deaths["before it was sent"] > 0
    platform.close()


def test_the_ledger_is_the_sum_of_the_usage_in_answers_and_of_the_tokens_whoever_dies(
    own_live: Live,
) -> None:
    live, platform = own_live, own_live.platform

    def drain(dies: bool) -> None:
        """Moves the journal into the ledger; a worker that dies has not noted how far it came."""
        marks = live.settings.journal.with_suffix(".offset")
        before = marks.read_bytes() if marks.exists() else None
        reader = JournalDrain(
            live.settings.journal, lambda found: record_inference(platform, found)
        )
        reader.drain()
        if dies:
            marks.unlink() if before is None else marks.write_bytes(before)

    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=2) as client:

        def ask(number: int) -> tuple[int, int]:
            messages: Any = [{"role": "user", "content": "word " * (number % 7 + 1)}]
            answer = client.chat.completions.create(
                model=BASE, messages=messages, n=1 + number % 2, max_tokens=3 + number % 5
            )
            assert answer.usage is not None
            return answer.usage.prompt_tokens, answer.usage.completion_tokens

        told: list[tuple[int, int]] = []
        for start in range(0, ANSWERS, 40):
            with ThreadPoolExecutor(8) as pool:
                told += pool.map(ask, range(start, start + 40))
            drain(dies=True)
            drain(dies=start % 80 == 0)
    drain(dies=False)
    drain(dies=False)
    entries = []
    after: str | None = None
    while True:
        page = list_ledger(platform, first_caller(platform), after, 100)
        entries += list(page.data)
        if not page.has_more:
            break
        after = entries[-1].id
    assert len(entries) == len({entry.request_id for entry in entries}) == ANSWERS
    billed = (sum(e.prompt_tokens for e in entries), sum(e.completion_tokens for e in entries))
    assert billed == (sum(p for p, _ in told), sum(c for _, c in told))
    assert billed[0] == sum(len(request.prompt) for request in live.engine.requests)
