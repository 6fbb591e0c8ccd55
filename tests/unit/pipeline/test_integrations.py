"""Trackers are told what a job measures, whatever they do, and a job never waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.platforms import clock_of, first_caller, open_platform, run_to_running, start_job

from afina.domain.events import JobEvent
from afina.domain.integrations import Integration, Mlflow, Wandb
from afina.domain.jobs import Job, JobError
from afina.errors import InvalidRequest
from afina.pipeline.integrations import GIVE_UP_S, IntegrationLane
from afina.service import publish
from afina.service.integrations import check_integrations
from afina.service.jobs import delete_job, get_job
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import events, jobs

KEY = "a" * 40
CANARY = "canaryrow"


class Tracker:
    """An MLflow server that remembers what it was asked, and fails when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.fail = False
        self.runs: list[str] = []
        tracker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tracker.answer(self, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                tracker.answer(self, json.loads(body))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        path = handler.path.partition("mlflow/")[2].partition("?")[0]
        self.headers.append(dict(handler.headers))
        status, told = 200, self._told(path, body)
        if self.fail:
            status, told = 500, {"error_code": "INTERNAL", "message": "on fire"}
        else:
            self.asked.append((path, body))
        raw = json.dumps(told).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def _told(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "experiments/get-by-name":
            return {"experiment": {"experiment_id": "7"}}
        if path == "runs/search":
            return {"runs": [{"info": {"run_id": run}} for run in self.runs]}
        if path == "runs/create" and not self.fail:
            self.runs.append(f"run{len(self.runs)}")
            return {"run": {"info": {"run_id": self.runs[-1]}}}
        return {}

    def steps(self) -> list[int]:
        return [m["step"] for _, body in self.asked for m in body.get("metrics", ())]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    opened = Tracker()
    yield opened
    opened.close()


def open_with(data: Path, **integrations: Any) -> Platform:
    return open_platform(data, integrations=integrations)


def tell_step(platform: Platform, job: Job, *steps: int) -> None:
    said = [
        JobEvent(
            platform.ids.new("ftevent-"), job.id, 1_700_000_000 + step, "info", "Step", "metrics",
            {"step": step, "total_steps": 9, "train_loss": 1 / step}, "run", step,
        )
        for step in steps
    ]  # fmt: skip
    with platform.database.write() as tx:
        events.append_events(tx, job.id, job.fence, said)


def begin(platform: Platform, *asked: Integration) -> Job:
    start_job(platform, first_caller(platform), integrations=asked)
    job = run_to_running(platform)
    with platform.database.write() as tx:
        jobs.update_job(tx, job.id, job.fence, started_at=platform.now())
    return job


def work(platform: Platform, lane: IntegrationLane, later_s: float = 400) -> None:
    clock_of(platform).advance(later_s)
    while lane.work():
        pass


def messages(platform: Platform, job: Job) -> list[tuple[str, str]]:
    with platform.database.read() as tx:
        found = events.all_events(tx, job.id)
    return [(e.level, e.message) for e in found if e.source == "integration"]


@pytest.fixture
def watched(tmp_path: Path, tracker: Tracker) -> Iterator[Platform]:
    opened = open_with(tmp_path, mlflow={"tracking_uri": tracker.url, "token": "secret-token"})
    yield opened
    opened.close()


def test_a_run_begins_with_the_job_and_ends_with_it(watched: Platform, tracker: Tracker) -> None:
    job = begin(watched, Mlflow("tunes", tags={"team": "claims"}))
    lane = IntegrationLane(watched)
    tell_step(watched, job, 1, 2)
    work(watched, lane)
    tell_step(watched, job, 3)
    work(watched, lane)
    publish.end_cancelled(watched, job, 10)
    work(watched, lane)
    assert tracker.steps() == [1, 2, 3]
    made = next(body for path, body in tracker.asked if path == "runs/create")
    assert made["run_name"] == job.id
    assert {"key": "team", "value": "claims"} in made["tags"]
    assert {"key": f"openai/{job.id}", "value": ""} in made["tags"]
    assert tracker.asked[-1][1]["status"] == "KILLED"
    assert messages(watched, job) == [
        ("info", f"MLflow run: {tracker.url}/#/experiments/7/runs/run0")
    ]
    before = len(tracker.asked)
    work(watched, lane)
    assert len(tracker.asked) == before


def test_a_lane_that_died_after_telling_finds_its_run_again(
    watched: Platform, tracker: Tracker
) -> None:
    job = begin(watched, Mlflow("tunes"))
    tell_step(watched, job, 1)
    tracker.runs.append("made-before-the-death")
    work(watched, IntegrationLane(watched))
    assert [path for path, _ in tracker.asked if path == "runs/create"] == []
    assert tracker.steps() == [1]


def test_a_tracker_that_fails_is_a_warning_said_once_and_is_told_all_later(
    watched: Platform, tracker: Tracker
) -> None:
    job = begin(watched, Mlflow("tunes"))
    lane = IntegrationLane(watched)
    tell_step(watched, job, 1)
    tracker.fail = True
    work(watched, lane)
    work(watched, lane)
    (said,) = messages(watched, job)
    assert said[0] == "warn"
    assert "MLflow experiment tunes" in said[1]
    assert "500" in said[1]
    tracker.fail = False
    tell_step(watched, job, 2)
    work(watched, lane)
    assert tracker.steps() == [1, 2]


def test_a_tracker_that_stays_away_is_given_up_a_day_after_the_job(
    watched: Platform, tracker: Tracker
) -> None:
    job = begin(watched, Mlflow("tunes"))
    lane = IntegrationLane(watched)
    tracker.fail = True
    publish.fail_job(watched, job, JobError("server_error", "x"))
    work(watched, lane)
    work(watched, lane, GIVE_UP_S)
    assert [level for level, _ in messages(watched, job)] == ["warn", "warn"]
    assert "given up" in messages(watched, job)[1][1]
    tracker.fail = False
    work(watched, lane, GIVE_UP_S)
    assert tracker.asked == []


def test_no_key_and_no_row_of_training_is_told_or_kept(watched: Platform, tracker: Tracker) -> None:
    job = begin(watched, Mlflow("tunes"))
    tell_step(watched, job, 1)
    tracker.fail = True
    work(watched, IntegrationLane(watched))
    with watched.database.read() as tx:
        kept = str(tx.exec_driver_sql("SELECT * FROM outbox").fetchall())
        kept += str(tx.exec_driver_sql("SELECT * FROM jobs").fetchall())
        kept += str(tx.exec_driver_sql("SELECT * FROM job_events").fetchall())
    assert "secret-token" not in kept
    tracker.fail = False
    work(watched, IntegrationLane(watched))
    assert '"q"' not in json.dumps(tracker.asked)
    assert tracker.headers[0]["authorization"] == "Bearer secret-token"


def test_a_job_that_never_began_or_is_gone_tells_nobody(
    watched: Platform, tracker: Tracker
) -> None:
    caller = first_caller(watched)
    job = start_job(watched, caller, integrations=(Mlflow("tunes"),))
    lane = IntegrationLane(watched)
    work(watched, lane)
    with watched.database.write() as tx:
        jobs.cancel_unheld(tx, job.id, watched.clock.now())
    work(watched, lane)
    gone = begin(watched, Mlflow("tunes"))
    publish.end_cancelled(watched, gone)
    delete_job(watched, caller, gone.id)
    work(watched, lane)
    assert tracker.asked == []


def test_a_job_shows_its_integrations_again(watched: Platform) -> None:
    asked = (Mlflow("tunes", "n", {"a": "b"}),)
    job = start_job(watched, first_caller(watched), integrations=asked)
    assert get_job(watched, first_caller(watched), job.id).integrations == asked
    assert Wandb("p").shown("ftjob-1")["wandb"]["run_id"] == "ftjob-1"


@pytest.mark.parametrize(
    ("given", "asked", "code", "word"),
    [
        ({}, Wandb("p"), "integration_not_configured", "integrations.wandb.api_key"),
        ({}, Mlflow("e"), "integration_not_configured", "tracking_uri"),
    ],
)
def test_what_is_not_set_up_is_refused_with_the_setting(
    tmp_path: Path, given: Any, asked: Integration, code: str, word: str
) -> None:
    settings = Settings.load(data=tmp_path, integrations=given)
    with pytest.raises(InvalidRequest) as caught:
        check_integrations(settings, [asked])
    assert (caught.value.code, caught.value.param) == (code, "integrations[0]")
    assert word in caught.value.one_line()


def test_a_missing_client_is_refused_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = Settings.load(data=tmp_path, integrations={"wandb": {"api_key": KEY}})
    with pytest.raises(InvalidRequest) as caught:
        check_integrations(settings, [Wandb("p")])
    assert "afina[wandb]" in caught.value.one_line()
    assert KEY not in caught.value.one_line() + repr(settings)


def test_two_that_mean_one_run_are_refused(tmp_path: Path) -> None:
    settings = Settings.load(data=tmp_path, integrations={"wandb": {"mode": "offline"}})
    with pytest.raises(InvalidRequest, match=r"integrations\[1\]"):
        check_integrations(settings, [Wandb("p"), Wandb("p", "another name")])


@pytest.mark.long
def test_weights_and_biases_is_written_by_its_own_client_once_the_job_is_over(
    tmp_path: Path,
) -> None:
    platform = open_with(tmp_path, wandb={"mode": "offline"})
    job = begin(platform, Wandb("claims", tags=("mine",)))
    lane = IntegrationLane(platform)
    tell_step(platform, job, 1, 2, 3)
    work(platform, lane)
    assert not (tmp_path / "wandb").exists()
    publish.fail_job(platform, job, JobError("server_error", "x"))
    half = tmp_path / "wandb" / f"offline-run-20200101_000000-{job.id}"
    half.mkdir(parents=True)
    work(platform, lane)
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{job.id}")
    assert folder != half
    told = read_wandb(folder / f"run-{job.id}.wandb")
    assert told["run"]["project"] == "claims"
    assert told["run"]["display_name"] == job.id
    assert set(told["run"]["tags"]) == {
        "openai/finetune", f"openai/{job.id}", f"openai/{job.model}", "mine",
    }  # fmt: skip
    assert told["config"]["seed"] == job.seed
    assert told["config"]["training_file"] == job.training_file
    assert [(row["_step"], row["train_loss"]) for row in told["history"]] == [
        (1, 1.0), (2, 1 / 2), (3, 1 / 3),
    ]  # fmt: skip
    assert told["exit_code"] == 1
    (said,) = messages(platform, job)
    assert said[0] == "info"
    assert folder.name in said[1]
    platform.close()


def records(raw: bytes) -> Iterator[bytes]:
    """The records of a file that is a log in blocks of 32 KiB behind a header of seven bytes:
    each piece has a checksum, a length and whether it is whole, first, middle or last."""
    place, whole = 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(raw[place + 4 : place + 6], "little"), raw[place + 6]
        whole += raw[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield whole
            whole = b""


def read_wandb(path: Path) -> dict[str, Any]:
    """What the client wrote, in the client's own records."""
    from wandb.proto import wandb_internal_pb2 as pb

    told: dict[str, Any] = {"history": [], "config": {}, "run": {}, "exit_code": None}
    for raw in records(path.read_bytes()):
        record = pb.Record()
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            told["run"] = {
                "project": run.project,
                "display_name": run.display_name,
                "tags": list(run.tags),
            }
            for item in run.config.update:
                told["config"][item.key] = json.loads(item.value_json)
        elif kind == "history":
            items = record.history.item
            told["history"].append(
                {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            )
        elif kind == "exit":
            told["exit_code"] = record.exit.exit_code
    return told


@pytest.mark.parametrize("asked", [Wandb("p"), Mlflow("e")])
def test_offline_refuses_a_tracker_by_the_settings_name(tmp_path: Path, asked: Integration) -> None:
    given = {"wandb": {"api_key": KEY}, "mlflow": {"tracking_uri": "http://127.0.0.1:9"}}
    settings = Settings.load(data=tmp_path, offline=True, integrations=given)
    with pytest.raises(InvalidRequest, match="the setting offline is on") as caught:
        check_integrations(settings, [asked])
    assert (caught.value.code, caught.value.param) == ("offline", "integrations[0]")


def test_offline_holds_back_what_was_promised_before(watched: Platform, tracker: Tracker) -> None:
    job = begin(watched, Mlflow("tunes"))
    tell_step(watched, job, 1)
    offline = watched.settings.model_copy(update={"offline": True})
    work(watched, IntegrationLane(replace(watched, settings=offline)))
    assert tracker.asked == []
    assert "the setting offline is on" in messages(watched, job)[0][1]
    work(watched, IntegrationLane(watched))
    assert tracker.steps() == [1]
