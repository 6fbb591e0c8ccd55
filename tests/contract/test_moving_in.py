"""Moving in: from a second afina, and from accounts that refuse, stutter and end in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs
from tests.contract.live import ALIAS, BASE, Live, make_base, running, settings_for
from tests.contract.tenants import published
from tests.platforms import ROW
from typer.testing import CliRunner, Result

from afina.cli.client import Client
from afina.cli.main import app
from afina.cli.moving import Move
from afina.errors import AfinaError
from afina.service.moving_plan import Wishes
from afina.service.moving_source import TRIES, Source, SourceRefused
from afina.serving.testing import Script

Answer = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Live]]:
    """The server that is left and the one that is moved to."""
    with capture_logs(), ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(name) for name in ("old", "new")]
        old, new = (stack.enter_context(running(settings_for(folder))) for folder in folders)
        make_base(old.settings.models, "gone-base")
        yield old, new


@pytest.fixture
def old(both: tuple[Live, Live]) -> Live:
    return both[0]


@pytest.fixture
def new(both: tuple[Live, Live]) -> Live:
    return both[1]


def command(old: Live, new: Live, folder: Path, *more: str) -> Result:
    where = ["--base-url", f"{old.url}/v1", "--key", old.key, "--folder", str(folder)]
    there = ["--server", new.url, "--data", str(new.settings.data)]
    return CliRunner().invoke(app, ["migrate", "openai", *where, *there, *more])


def worked(done: Result) -> str:
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def upload(live: Live, rows: int = 12, purpose: str = "fine-tune") -> str:
    sent = live.http.post(
        "/v1/files", files={"file": ("train.jsonl", ROW * rows)}, data={"purpose": purpose}
    )
    return str(sent.json()["id"])


def jobs_of(live: Live) -> list[dict[str, Any]]:
    return list(live.http.get("/v1/fine_tuning/jobs?limit=100").json()["data"])


def moved_from(live: Live, source: str) -> list[dict[str, Any]]:
    found = live.http.get(f"/v1/fine_tuning/jobs?metadata[moved_from]={source}")
    return list(found.json()["data"])


def test_succeeded_jobs_their_files_and_stored_completions_come_over_once(
    old: Live, new: Live, tmp_path: Path
) -> None:
    done = published(old, old.key, upload(old), tmp_path / "scratch")
    failed = old.http.post(
        "/v1/fine_tuning/jobs", json={"model": BASE, "training_file": upload(old)}
    ).json()
    old.http.post(f"/v1/fine_tuning/jobs/{failed['id']}/cancel")
    chat = {"model": BASE, "messages": [{"role": "user", "content": "Hello!"}], "store": True}
    for _ in range(2):
        assert old.http.post("/v1/chat/completions", json=chat).status_code == 200
    folder = tmp_path / "moving-in"
    shown = worked(command(old, new, folder, "--plan"))
    assert done.id in shown
    assert f"{failed['id']} is left out: it is cancelled there" in shown
    assert moved_from(new, done.id) == []
    made = worked(command(old, new, folder, "--yes"))
    [job] = moved_from(new, done.id)
    assert f"{done.id} → {job['id']} validating_files" in made
    assert "2 rows" in made
    assert job["metadata"] == {"moved_from": done.id}
    assert (job["seed"], job["afina"]["suffix"]) == (done.seed, "bot")
    moved = new.http.get(f"/v1/files/{job['training_file']}/content").content
    assert moved == ROW * 12
    named = [
        live.http.get(f"/v1/files/{file}").json()["filename"]
        for live, file in ((old, done.training_file), (new, job["training_file"]))
    ]
    assert named[0] == named[1], "a file keeps its name"
    again = json.loads(worked(command(old, new, folder, "--json")))
    assert [line["job"] for line in again["jobs"] if line["job"]] == [job["id"]]
    assert len(moved_from(new, done.id)) == 1
    files = len(new.http.get("/v1/files").json()["data"])
    worked(command(old, new, tmp_path / "another folder", "--yes", "--no-completions"))
    assert len(moved_from(new, done.id)) == 1, "without its folder it is found by its mark"
    assert len(new.http.get("/v1/files").json()["data"]) == files
    rows = [
        json.loads(line)
        for line in (folder / "files" / f"stored-{BASE}-2.jsonl").read_text().splitlines()
    ]
    assert rows[0]["messages"][0] == {"role": "user", "content": "Hello!"}
    assert rows[0]["messages"][-1]["role"] == "assistant"


class Account:
    """An account in memory that answers as it is told to; what it was asked, it remembers."""

    def __init__(self, *jobs: dict[str, Any], files: dict[str, bytes] | None = None) -> None:
        self.jobs = list(jobs)
        self.files = files if files is not None else {"file-a": ROW * 12}
        self.say: dict[str, list[httpx2.Response]] = {}
        self.asked: list[str] = []
        self.pauses: list[float] = []

    def source(self) -> Source:
        transport = httpx2.MockTransport(self.answer)
        return Source("https://old.example/v1", "sk-x", transport, self.pauses.append)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        self.asked.append(path)
        if self.say.get(path):
            return self.say[path].pop(0)
        if path == "/fine_tuning/jobs":
            return self._page(request)
        name = path.split("/")[2] if path.startswith("/files/") else ""
        if name not in self.files:
            return refusal(404, f"No such File object: {name}")
        content = self.files[name]
        if path.endswith("/content"):
            return httpx2.Response(200, content=content)
        return httpx2.Response(200, json={"id": name, "bytes": len(content)})

    def _page(self, request: httpx2.Request) -> httpx2.Response:
        listed = self.jobs[::-1]
        after = request.url.params.get("after")
        start = 0 if after is None else [j["id"] for j in listed].index(after) + 1
        page = listed[start : start + 2]
        return httpx2.Response(
            200, json={"object": "list", "data": page, "has_more": start + 2 < len(listed)}
        )


def refusal(status: int, message: str, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json={"error": {"message": message}}, headers=named)


def tuned(number: int, **more: Any) -> dict[str, Any]:
    """A job as the hosted service shows it."""
    return {
        "id": f"ftjob-{number}",
        "status": "succeeded",
        "model": ALIAS,
        "fine_tuned_model": f"ft:{ALIAS}:acme:Claims_{number}:abcd123{number}",
        "created_at": 1_700_000_000 + number,
        "training_file": "file-a",
        "validation_file": None,
        "seed": 7,
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 4,
                    "batch_size": 3,
                    "learning_rate_multiplier": 1.8,
                }
            },
        },
        "metadata": {"team": "claims"},
        "error": {},
        **more,
    }


@pytest.fixture
def client(new: Live) -> Iterator[Client]:
    new.engine.script = Script()
    with Client(new.url, new.key) as client:
        yield client


def move(account: Account, client: Client, folder: Path) -> Move:
    return Move(account.source(), client, folder, lambda text: None)


def test_names_numbers_and_marks_come_over_as_they_can_be_here(
    client: Client, tmp_path: Path
) -> None:
    account = Account(tuned(1), tuned(2, validation_file="file-a"), tuned(3))
    moving = move(account, client, tmp_path)
    lines = moving.plan(Wishes(only=("ftjob-1", "ftjob-2")))
    assert [line.left_out for line in lines] == [None, None, "not asked for"]
    moving.create(lines)
    for line, with_validation in zip(lines, (False, True), strict=False):
        made = line.made or {}
        assert made["model"] == BASE, "the alias of the settings pairs the bases"
        assert made["afina"]["suffix"] == f"claims-{line.job.source[-1]}"
        assert made["metadata"] == {"team": "claims", "moved_from": line.job.source}
        assert (made["seed"], made["hyperparameters"]["n_epochs"]) == (7, 4)
        assert made["hyperparameters"]["batch_size"] == "auto"
        assert (made["validation_file"] is not None) is with_validation
        assert "auto here instead of batch_size 3, learning_rate_multiplier 1.8" in line.job.notes
    same = moving.plan(Wishes(only=("ftjob-1",), same_numbers=True))
    assert same[0].job.body["method"]["supervised"]["hyperparameters"]["batch_size"] == 3
    assert account.asked.count("/files/file-a/content") == 1, "a file is downloaded once"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (tuned(1, status="failed"), "it has failed there"),
        (tuned(1, status="running"), "it is running there"),
        (tuned(1, method={"type": "reinforcement"}), "the method reinforcement is not offered"),
        (tuned(1, model="ft:gpt-4o:acme::gone1234"), "whose job is not in this account"),
        (tuned(1, training_file="file-gone"), "cannot be downloaded (The source says: No such"),
        (tuned(1, training_file="../../etc/passwd"), "that is no file's id"),
        (tuned(1, training_file=None), "it names no training file"),
    ],
)
def test_what_cannot_come_over_says_why(
    client: Client, tmp_path: Path, job: dict[str, Any], why: str
) -> None:
    [line] = move(Account(job), client, tmp_path).plan(Wishes())
    assert why in (line.left_out or "")


def test_a_base_that_nothing_stands_for_is_left_out_until_the_table_says_more(
    client: Client, new: Live, tmp_path: Path
) -> None:
    make_base(new.settings.models, "second-base")
    try:
        account = Account(tuned(1, model="davinci-002"))
        [line] = move(account, client, tmp_path).plan(Wishes())
        assert "write one into bases.toml" in (line.left_out or "")
        table = tmp_path / "bases.toml"
        table.write_text(table.read_text().replace('= ""', '= "no-base"'))
        [line] = move(account, client, tmp_path).plan(Wishes())
        assert "no-base is no base model here" in (line.left_out or "")
        table.write_text(table.read_text().replace('"no-base"', '"second-base"'))
        [line] = move(account, client, tmp_path).plan(Wishes())
        assert (line.left_out, line.job.model) == (None, "second-base")
        table.write_text("davinci-002 = ")
        with pytest.raises(AfinaError, match=r"bases\.toml cannot be read"):
            move(account, client, tmp_path).plan(Wishes())
    finally:
        for file in (new.settings.models / "second-base").iterdir():
            file.unlink()
        (new.settings.models / "second-base").rmdir()


def test_a_tune_of_a_tune_waits_until_its_parent_is_here(
    client: Client, new: Live, tmp_path: Path
) -> None:
    for job in jobs_of(new):
        new.http.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
    first = tuned(8, suffix=None)
    second = tuned(9, model=first["fine_tuned_model"])
    account = Account(first, second)
    moving = move(account, client, tmp_path / "folder")
    lines = moving.plan(Wishes())
    moving.create(lines)
    parent = lines[0].made or {}
    assert lines[1].waits == f"waits for {parent['id']}: run this again when it has succeeded"
    ready = published(new, new.key, None, tmp_path / "scratch")
    assert ready.id == parent["id"]
    again = move(account, client, tmp_path / "folder")
    lines = again.plan(Wishes())
    again.create(lines)
    assert lines[0].made is not None
    assert lines[0].made["status"] == "succeeded"
    refused = lines[1].left_out or ""
    assert f"refused here: The model `{ready.fine_tuned_model}` was tuned on" in refused, (
        "the tune of this test is of other weights: its name is what was asked for"
    )


def test_a_job_that_failed_here_is_made_anew_and_one_that_lives_is_not(
    client: Client, tmp_path: Path
) -> None:
    account = Account(tuned(4))
    ids = []
    for _ in range(3):
        moving = move(account, client, tmp_path)
        lines = moving.plan(Wishes())
        moving.create(lines)
        ids.append((lines[0].made or {})["id"])
        if len(ids) == 1:
            client.post(f"/v1/fine_tuning/jobs/{ids[0]}/cancel")
    assert ids[0] != ids[1] == ids[2]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not take the key: Incorrect API key (status 401)"),
        (403, "may not list fine-tuning jobs"),
        (404, "must end as the official client's does"),
        (429, "is busy"),
        (503, "is busy"),
    ],
)
def test_an_account_that_refuses_is_told_with_what_to_do(
    client: Client, tmp_path: Path, status: int, said: str
) -> None:
    account = Account()
    account.say["/fine_tuning/jobs"] = [refusal(status, "Incorrect API key") for _ in range(9)]
    with pytest.raises(AfinaError) as refused:
        move(account, client, tmp_path).plan(Wishes())
    assert said in refused.value.one_line()
    assert refused.value.remedy
    assert len(account.asked) == (TRIES if status in (429, 503) else 1)


def test_what_is_busy_is_asked_again_as_late_as_it_says(client: Client, tmp_path: Path) -> None:
    account = Account(tuned(5))
    account.say["/fine_tuning/jobs"] = [refusal(429, "slow down", retry_after="7")]
    account.say["/files/file-a/content"] = [
        refusal(500, "oops"),
        httpx2.Response(200, content=ROW),
    ]
    [line] = move(account, client, tmp_path).plan(Wishes())
    assert line.left_out is None
    assert account.pauses[0] == 7.0
    assert (tmp_path / "files" / "file-a.jsonl").read_bytes() == ROW * 12, "short bytes come again"


def test_a_download_that_is_refused_leaves_that_job_out_and_takes_a_file_laid_there(
    client: Client, tmp_path: Path
) -> None:
    account = Account(tuned(6, training_file="file-b"), tuned(7), files={"file-a": ROW * 12})
    account.files["file-b"] = ROW * 12
    account.say["/files/file-b/content"] = [
        refusal(403, "Not allowed to download files of purpose: fine-tune") for _ in range(3)
    ]
    lines = move(account, client, tmp_path).plan(Wishes())
    assert [line.left_out is None for line in lines] == [False, True]
    assert "Not allowed to download" in (lines[0].left_out or "")
    laid = tmp_path / "files" / "file-b.jsonl"
    assert str(laid) in (lines[0].left_out or "")
    laid.write_bytes(ROW * 12)
    lines = move(account, client, tmp_path).plan(Wishes())
    assert [line.left_out for line in lines] == [None, None]


def test_a_break_in_the_middle_leaves_no_half_file_and_the_rest_is_not_asked_again(
    client: Client, tmp_path: Path
) -> None:
    class Breaking(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield ROW
            raise httpx2.ReadError("cut")

    account = Account(
        tuned(1), tuned(2, training_file="file-c"), files={"file-a": ROW * 10, "file-c": ROW * 11}
    )
    account.say["/files/file-c/content"] = [
        httpx2.Response(200, stream=Breaking()) for _ in range(TRIES)
    ]
    with pytest.raises(AfinaError, match="cannot be reached"):
        move(account, client, tmp_path).plan(Wishes())
    assert sorted(path.name for path in (tmp_path / "files").glob("*.jsonl")) == ["file-a.jsonl"]
    lines = move(account, client, tmp_path).plan(Wishes())
    assert [line.left_out for line in lines] == [None, None]
    assert account.asked.count("/files/file-a/content") == 1


def test_completions_that_are_not_kept_there_stop_nothing(client: Client, tmp_path: Path) -> None:
    account = Account()
    account.say["/chat/completions"] = [refusal(403, "Missing scopes: api.logs.read")]
    with pytest.raises(SourceRefused, match="Missing scopes"):
        move(account, client, tmp_path).take_completions()
    torn = tmp_path / "completions.jsonl"
    whole = json.dumps({"id": "c1", "model": "m", "row": None}) + "\n"
    torn.write_text(whole + '{"id": "c2", "mo')
    account.say["/chat/completions"] = [
        httpx2.Response(200, json={"data": [{"id": "c1"}], "has_more": False})
    ]
    assert move(account, client, tmp_path).take_completions() == {"m": {"rows": 0, "left_out": 1}}
    assert torn.read_text() == whole


def test_the_key_is_written_nowhere(old: Live, new: Live, tmp_path: Path) -> None:
    folder = tmp_path / "moving-in"
    done = command(old, new, folder, "--plan")
    worked(done)
    assert old.key not in done.output
    for path in folder.rglob("*"):
        assert path.is_dir() or old.key not in path.read_text()


@pytest.mark.parametrize("where", ["ftp://host/v1", "host/v1", "https://"])
def test_an_address_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(AfinaError, match="is no address"):
        Source(where, "sk-x")


def test_the_command_asks_for_a_key(old: Live, tmp_path: Path) -> None:
    runner = CliRunner()
    asked = runner.invoke(app, ["migrate", "openai", "--folder", str(tmp_path)])
    assert asked.exit_code == 2
    assert "--key-file" in asked.output
