"""Following a job: each event once, in order, whatever happens to the server meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.cli.conftest import ScriptedServer
from typer.testing import Result

from afina.cli import watch
from afina.cli.progress import Progress, sparkline

Afina = Callable[..., Result]
JOB = "GET /v1/fine_tuning/jobs/ftjob-1"
EVENTS = f"{JOB}/events"


def job(status: str, **more: object) -> dict[str, object]:
    base = {"id": "ftjob-1", "status": status, "trained_tokens": None, "fine_tuned_model": None}
    return {**base, "error": None, **more}


def message(number: int, text: str) -> dict[str, object]:
    return {"id": f"ftevent-{number}", "type": "message", "level": "info", "message": text}


def step(number: int, of: int, loss: float) -> dict[str, object]:
    data = {"step": number, "total_steps": of, "train_loss": loss}
    text = f"Step {number}/{of}: training loss={loss:.2f}"
    return message(100 + number, text) | {"type": "metrics", "data": data}


def page(*events: dict[str, object], more: bool = False) -> dict[str, object]:
    return {"data": list(events), "has_more": more}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_POLL_S", 0.001)
    monkeypatch.setattr(watch, "_AWAY_S", 0.001)


def test_events_are_shown_once_and_in_order_over_an_outage(
    server: ScriptedServer, afina: Afina
) -> None:
    one, two, three = message(1, "Created"), message(2, "Validated"), message(3, "Done")
    server.say(JOB, job("queued"))
    server.refuse(JOB, 503, "The platform is restarting.")
    server.say(JOB, job("running"), job("succeeded", trained_tokens=7, fine_tuned_model="ft:x"))
    server.say(EVENTS, page(one), page(two, one), page(three, two, one))
    done = afina("jobs", "watch", "ftjob-1")
    assert done.exit_code == 0
    assert done.stdout.split() == ["Created", "Validated", "Done"]
    assert "the job is safe" in done.stderr
    assert "7 tokens trained" in done.stderr


def test_a_backlog_longer_than_a_page_is_read_whole(server: ScriptedServer, afina: Afina) -> None:
    server.say(JOB, job("succeeded", fine_tuned_model="ft:x"))
    server.say(EVENTS, page(message(3, "c"), message(2, "b"), more=True), page(message(1, "a")))
    done = afina("jobs", "watch", "ftjob-1")
    assert done.stdout.split() == ["a", "b", "c"]
    assert server.asked[2].query.endswith("after=ftevent-2")


def test_steps_are_thinned_out_where_nobody_looks_at_a_terminal(
    server: ScriptedServer, afina: Afina
) -> None:
    server.say(JOB, job("succeeded", fine_tuned_model="ft:x"))
    server.say(EVENTS, page(*(step(n, 100, 3 - n / 50) for n in range(100, 0, -1))))
    done = afina("jobs", "watch", "ftjob-1")
    lines = done.stdout.splitlines()
    assert 10 <= len(lines) <= 12
    assert "Step 100/100: training loss=1.00" in lines[-1]
    assert lines[-1].rstrip().endswith("▁")


def test_a_pause_is_said_once_with_the_way_out_of_it(server: ScriptedServer, afina: Afina) -> None:
    server.say(JOB, job("running"), job("paused"), job("paused"), job("running"), job("paused"))
    server.say(JOB, job("succeeded", fine_tuned_model="ft:x"))
    server.say(EVENTS, page())
    done = afina("jobs", "watch", "ftjob-1")
    assert done.exit_code == 0
    assert done.stderr.count("To go on with it: afina jobs resume ftjob-1") == 2


def test_a_failed_job_is_one_line_and_exit_code_1(server: ScriptedServer, afina: Afina) -> None:
    error = {"code": "invalid_training_file", "message": "Line 3 is not JSON.", "param": None}
    server.say(JOB, job("failed", error=error))
    server.say(EVENTS, page())
    done = afina("jobs", "watch", "ftjob-1")
    assert done.exit_code == 1
    assert done.stderr == "afina: ftjob-1 failed: Line 3 is not JSON.\n"


def test_json_is_one_event_a_line_and_the_job_last(server: ScriptedServer, afina: Afina) -> None:
    server.say(JOB, job("succeeded", fine_tuned_model="ft:x"))
    server.say(EVENTS, page(step(1, 1, 2.0), message(1, "Created")))
    done = afina("jobs", "watch", "ftjob-1", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == ["ftevent-1", "ftevent-101", "ftjob-1"]


def test_an_unknown_job_is_not_waited_for(server: ScriptedServer, afina: Afina) -> None:
    server.refuse(JOB, 404, "There is no job ftjob-1.")
    done = afina("jobs", "watch", "ftjob-1")
    assert done.exit_code == 1
    assert done.stderr == "afina: There is no job ftjob-1.\n"


def test_ctrl_c_leaves_the_job_alone(
    server: ScriptedServer, afina: Afina, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    server.say(JOB, job("running"))
    server.say(EVENTS, page())
    monkeypatch.setattr("afina.cli.watch.time.sleep", interrupt)
    done = afina("jobs", "watch", "ftjob-1")
    assert done.exit_code == 130
    assert "the job goes on" in done.stderr
    assert {asked.method for asked in server.asked} == {"GET"}


@pytest.mark.parametrize(
    ("state", "told", "untold"),
    [("held", "afina models release ft:m", "afina chat"), ("released", "afina chat ft:m", "held")],
)
def test_nobody_is_sent_to_talk_to_a_model_that_is_held_back(
    server: ScriptedServer, afina: Afina, state: str, told: str, untold: str
) -> None:
    server.say(JOB, job("succeeded", trained_tokens=7, fine_tuned_model="ft:m"))
    server.say(EVENTS, page())
    server.say("GET /v1/models/ft:m", {"id": "ft:m", "afina": {"state": state}})
    result = afina("jobs", "watch", "ftjob-1")
    assert told in result.stderr
    assert untold not in result.stderr


def take(progress: Progress, *steps: tuple[int, float], of: int = 100) -> Progress:
    for number, now in steps:
        progress.take(step(number, of, 2.0), now)
    return progress


def test_the_time_left_comes_from_the_steps_that_were_watched() -> None:
    assert take(Progress(), (1, 0.0)).seconds_left is None
    assert take(Progress(), (1, 0.0), (11, 1.0)).seconds_left == pytest.approx(8.9)


def test_a_backlog_says_nothing_about_the_pace() -> None:
    progress = take(Progress(), *((n, n / 1000) for n in range(1, 51)))
    assert progress.seconds_left is None
    progress = take(progress, (60, 1.0))
    assert progress.seconds_left == pytest.approx(4.0, rel=0.01)


def test_a_trainer_that_went_back_to_a_checkpoint_takes_the_losses_back_too() -> None:
    progress = take(Progress(), (1, 0.0), (2, 1.0), (3, 2.0), (2, 9.0))
    assert (progress.step, len(progress.losses)) == (2, 2)


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([1.0], "▁"), ([2.0, 1.0], "█▁"), ([float(n) for n in range(8)], "▁▂▃▄▅▆▇█")],
)
def test_a_sparkline_goes_from_lowest_to_highest(values: list[float], shown: str) -> None:
    assert sparkline(values) == shown


def test_a_long_sparkline_keeps_its_width() -> None:
    assert len(sparkline([float(n % 7) for n in range(1000)], width=24)) == 24


def test_messages_other_than_metrics_do_not_count() -> None:
    progress = Progress()
    event: dict[str, Any] = message(1, "Created")
    progress.take(event, 0.0)
    assert progress == Progress()
