"""`integrations` on the wire, and against the trackers themselves."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.contract.live import running, settings_for
from tests.live import wait_until
from tests.platforms import open_platform
from tests.unit.pipeline.test_integrations import begin, messages, tell_step, work

from afina.domain.integrations import Mlflow
from afina.domain.jobs import JobError
from afina.pipeline.integrations import IntegrationLane, Progress
from afina.service import publish
from afina.settings import Settings

ROOT = Path(__file__).parents[2]
MLFLOW = "3.17.2"
WANDB = {"type": "wandb", "wandb": {"project": "claims", "tags": ["mine"]}}
TRACKED = {"type": "mlflow", "mlflow": {"experiment": "tunes"}}


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = settings_for(tmp_path_factory.mktemp("data"))
    given = {"wandb": {"mode": "offline"}, "mlflow": {"tracking_uri": "http://127.0.0.1:9"}}
    return Settings.load(**{**settings.model_dump(exclude_unset=True), "integrations": given})


def create(client: openai.OpenAI, file: str, *integrations: Any) -> Any:
    return client.fine_tuning.jobs.create(
        model="tiny-base", training_file=file, integrations=list(integrations)
    )


@pytest.fixture
def file(client: openai.OpenAI) -> str:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    body = ("\n".join([json.dumps(row)] * 10)).encode()
    return client.files.create(file=("train.jsonl", body), purpose="fine-tune").id


def test_a_job_shows_its_integrations_to_the_client(client: openai.OpenAI, file: str) -> None:
    made = create(client, file, WANDB, TRACKED)
    shown = client.fine_tuning.jobs.retrieve(made.id).integrations
    assert shown is not None
    assert shown[0].wandb.project == "claims"
    assert shown[0].wandb.tags == ["mine"]
    assert shown[0].wandb.run_id == made.id  # type: ignore[attr-defined]
    assert shown[1].mlflow == {"experiment": "tunes", "name": None, "tags": {}}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "param", "word"),
    [
        ({"type": "comet", "comet": {}}, "integrations[0].type", "'wandb', 'mlflow'"),
        ({"wandb": {"project": "p"}}, "integrations[0].type", "Missing"),
        ({"type": "wandb", "mlflow": {"experiment": "e"}}, "integrations[0].mlflow", "Unknown"),
        ({"type": "wandb", "wandb": {}}, "integrations[0].wandb.project", "Missing"),
        (
            {"type": "wandb", "wandb": {"project": "p", "api_key": "k"}},
            "integrations[0].wandb.api_key",
            "Unknown",
        ),
        (
            {"type": "wandb", "wandb": {"project": "p", "tags": ["t" * 65]}},
            "integrations[0].wandb.tags[0]",
            "64",
        ),
        (
            {"type": "mlflow", "mlflow": {"experiment": "e", "tracking_uri": "http://x"}},
            "integrations[0].mlflow.tracking_uri",
            "Unknown",
        ),
    ],
)
def test_what_is_wrong_with_an_integration_is_named(
    client: openai.OpenAI, file: str, asked: Any, param: str, word: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, file, asked)
    assert caught.value.param == param
    assert word in caught.value.message


def test_without_a_key_a_create_fails_in_plain_words(tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0)
        with client, pytest.raises(openai.BadRequestError, match="not set up") as caught:
            create(client, "file-x", WANDB)
        assert caught.value.code == "integration_not_configured"


class Server:
    """A real MLflow server in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        command = [mlflow_python(), "-m", "mlflow", "server", "--port", port, "--workers", 1]
        store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        artifacts = ["--default-artifact-root", folder / "artifacts"]
        self._process = subprocess.Popen(
            [str(word) for word in [*command, *store, *artifacts]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str, **query: str) -> Any:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        with urllib.request.urlopen(f"{self.uri}/api/2.0/mlflow/{path}?{text}") as answer:
            return json.load(answer)

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def mlflow_python() -> Path:
    """The interpreter of an environment with MLflow and nothing of ours: it needs other versions
    of what we use; made once below `.cache/mlflow`."""
    folder = ROOT / ".cache" / "mlflow" / MLFLOW
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"mlflow=={MLFLOW}"], check=True)
        (folder / "ready").touch()
    return python


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    opened = Server(tmp_path)
    wait_until("the MLflow server", opened.is_up)
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_mlflow_server_holds_each_step_once(server: Server, tmp_path: Path) -> None:
    platform = open_platform(
        tmp_path / "data", integrations={"mlflow": {"tracking_uri": server.uri}}
    )
    job = begin(platform, Mlflow("tunes of claims", tags={"team": "claims"}))
    lane = IntegrationLane(platform)
    tell_step(platform, job, 1, 2, 3)
    work(platform, lane)
    # As after a death between the telling and its note: everything comes once more.
    forgotten = json.dumps(Progress(job.id, 0).payload())
    with platform.database.write() as tx:
        tx.exec_driver_sql(f"UPDATE outbox SET payload = '{forgotten}'")
    tell_step(platform, job, 4)
    work(platform, lane)
    publish.fail_job(platform, job, JobError("server_error", "x"))
    work(platform, lane)
    (said,) = messages(platform, job)
    run = server.ask("runs/get", run_id=said[1].rpartition("/")[2])["run"]
    assert run["info"]["run_name"] == job.id
    assert run["info"]["status"] == "FAILED"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["afina.job_id"] == job.id
    assert tags["team"] == "claims"
    assert tags["afina.error_code"] == "server_error"
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params["training_file"] == job.training_file
    assert params["seed"] == str(job.seed)
    history = server.ask(
        "metrics/get-history", run_id=run["info"]["run_id"], metric_key="train_loss"
    )["metrics"]
    assert [(m["step"], m["value"]) for m in history] == [(s, 1 / s) for s in (1, 2, 3, 4)]
    platform.close()
