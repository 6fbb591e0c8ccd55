"""How trackers are told: Weights & Biases by its own client in a child, MLflow by its HTTP API.

A round may come again after a death in its middle: the run is found by the id of its job, and a
step that is known is not told twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from afina.domain.codec import encode
from afina.domain.integrations import Integration, Mlflow, RunNews, Told, Wandb
from afina.domain.sayings import Said, say
from afina.errors import Unavailable
from afina.outside_settings import MlflowSettings
from afina.pipeline.wandb_run import WandbNews
from afina.settings import Settings, child_environment

COMMAND: Final = (sys.executable, "-m", "afina.pipeline.wandb_run")
JOB_TAG: Final = "afina.job_id"
_AT_ONCE: Final = 900
"""Metrics in one request: MLflow takes a thousand."""
_SHOWN: Final = 200
_STATUS: Final = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class TrackerFailed(Unavailable):
    """The tracker could not be told; its turn comes again."""


def tell(settings: Settings, one: Integration, news: RunNews, run: str | None) -> Told:
    """Tells one tracker what is new. `run` is what it answered before. Raises TrackerFailed,
    and Offline."""
    given = settings.integrations.wandb
    if not (isinstance(one, Wandb) and given.mode == "offline"):
        settings.check_online("Trackers cannot be told")
    if isinstance(one, Wandb):
        return _tell_wandb(settings, one, news)
    return _MlflowServer(settings.integrations.mlflow, settings.integrations.timeout_s).tell(
        one, news, run
    )


def _tell_wandb(settings: Settings, one: Wandb, news: RunNews) -> Told:
    given = settings.integrations.wandb
    settings.wandb.mkdir(parents=True, exist_ok=True, mode=0o700)
    if given.mode == "offline":
        # What an attempt left that died in its middle.
        for folder in settings.wandb.glob(f"offline-run-*-{news.job_id}"):
            shutil.rmtree(folder, ignore_errors=True)
    asked = WandbNews(
        one.project, one.entity, (*news.tags, *one.tags), news, settings.integrations.timeout_s / 2
    )
    answer = _run_child(settings, json.dumps(encode(asked)))
    if given.mode == "offline":
        return Told(news.job_id, say("wandb_written", folder=str(answer["folder"])))
    return Told(news.job_id, say("wandb_run", url=str(answer["url"])))


def _run_child(settings: Settings, text: str) -> dict[str, Any]:
    # Not a pipe: the client's helper process would hold it open after the child has ended.
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.DEVNULL,
            env=child_environment(**_wandb_environment(settings)),
            start_new_session=True,
        )
        try:
            child.communicate(text.encode(), timeout=settings.integrations.timeout_s)
        except subprocess.TimeoutExpired:
            raise TrackerFailed("Weights & Biases was not done in time.") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        said = out.read()
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise TrackerFailed("The client of Weights & Biases ended without a word.") from None
    if "error" in answer:
        key = settings.integrations.wandb.api_key
        reason = str(answer["error"])
        raise TrackerFailed(reason.replace(key, "…") if key else reason)
    return answer


def _wandb_environment(settings: Settings) -> dict[str, str]:
    given = settings.integrations.wandb
    said = {
        "WANDB_MODE": given.mode,
        "WANDB_DIR": str(settings.data),
        "WANDB_CACHE_DIR": str(settings.wandb / "cache"),
        "WANDB_CONFIG_DIR": str(settings.wandb / "config"),
        "WANDB_DATA_DIR": str(settings.wandb / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }
    if given.api_key is not None:
        said["WANDB_API_KEY"] = given.api_key
    if given.base_url is not None:
        said["WANDB_BASE_URL"] = given.base_url
    return said


class _MlflowServer:
    """The tracking server of the settings."""

    def __init__(self, given: MlflowSettings, timeout_s: float) -> None:
        assert given.tracking_uri is not None
        self._uri = given.tracking_uri.rstrip("/")
        self._given = given
        self._timeout_s = timeout_s

    def tell(self, one: Mlflow, news: RunNews, run: str | None) -> Told:
        headers = {"user-agent": "afina/1"}
        if self._given.token is not None:
            headers["authorization"] = f"Bearer {self._given.token}"
        auth = None
        if self._given.username is not None:
            auth = httpx2.BasicAuth(self._given.username, self._given.password or "")
        with httpx2.Client(
            timeout=min(10.0, self._timeout_s), headers=headers, auth=auth, trust_env=False
        ) as client:
            self._client = client
            said = None
            if run is None:
                run, said = self._run(one, news)
            self._log(run, news)
            return Told(run, said)

    def _run(self, one: Mlflow, news: RunNews) -> tuple[str, Said]:
        """The id of the job's run, found or made, and a sentence with its address."""
        experiment = self._experiment(one.experiment)
        found = self._post(
            "runs/search",
            experiment_ids=[experiment],
            filter=f"tags.`{JOB_TAG}` = '{news.job_id}'",
            run_view_type="ACTIVE_ONLY",
            max_results=1,
        ).get("runs")
        if found:
            run = str(found[0]["info"]["run_id"])
        else:
            tags = dict.fromkeys(news.tags, "") | dict(one.tags) | {JOB_TAG: news.job_id}
            made = self._post(
                "runs/create",
                experiment_id=experiment,
                run_name=news.name,
                start_time=news.started_at * 1000,
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
            run = str(made["run"]["info"]["run_id"])
        params = [{"key": k, "value": str(v)} for k, v in news.config.items() if v is not None]
        self._post("runs/log-batch", run_id=run, params=params)
        url = f"{self._uri}/#/experiments/{experiment}/runs/{run}"
        return run, say("mlflow_run", url=url)

    def _experiment(self, name: str) -> str:
        found = self._ask("GET", "experiments/get-by-name", params={"experiment_name": name})
        if found is None:
            return str(self._post("experiments/create", name=name)["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    def _log(self, run: str, news: RunNews) -> None:
        metrics = [
            {"key": name, "value": value, "timestamp": row.time * 1000, "step": row.step}
            for row in news.metrics
            for name, value in row.values.items()
        ]
        for start in range(0, len(metrics), _AT_ONCE):
            self._post("runs/log-batch", run_id=run, metrics=metrics[start : start + _AT_ONCE])
        if news.state == "running":
            return
        tags = [{"key": f"afina.{k}", "value": str(v)} for k, v in news.outcome.items()]
        self._post("runs/log-batch", run_id=run, tags=tags)
        ended = (news.ended_at or news.started_at) * 1000
        self._post("runs/update", run_id=run, status=_STATUS[news.state], end_time=ended)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._ask("POST", path, json=body)
        if answer is None:
            raise TrackerFailed(f"MLflow does not know what {path} asked about.")
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """The answer; None for a 404. Raises TrackerFailed."""
        url = f"{self._uri}/api/2.0/mlflow/{path}"
        try:
            answer = self._client.request(method, url, params=params, json=json)
        except httpx2.HTTPError as error:
            raise TrackerFailed(f"MLflow could not be asked ({type(error).__name__}).") from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise TrackerFailed(f"MLflow answered {answer.status_code}: {_reason(answer)}")
        try:
            told: dict[str, Any] = answer.json()
        except ValueError:
            raise TrackerFailed("What MLflow answered is not JSON.") from None
        return told


def _reason(answer: httpx2.Response) -> str:
    try:
        said = answer.json()
        return f"{said['error_code']} {said['message']}".splitlines()[0][:_SHOWN]
    except (ValueError, KeyError, TypeError, IndexError):
        return "no reason given"
