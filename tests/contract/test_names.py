"""Tuned models under other names and in other projects: permissions, aliases, shutdown dates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import openai
import pytest
from openai.types import Model
from openai.types.fine_tuning.checkpoints import (
    PermissionCreateResponse,
    PermissionDeleteResponse,
    PermissionListResponse,
)
from tests.contract.live import BASE, Live, running, settings_for
from tests.platforms import ROW, publish

from afina.domain.jobs import Job, JobStatus
from afina.service.card_readme import CARD_FILES
from afina.service.jobs import JobRequest, create_job
from afina.service.keys import authenticate
from afina.settings import Settings
from afina.store import jobs, leases


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("data")
    return settings_for(folder, shutdown_dates={BASE: date(2099, 1, 14)})


def tuned(live: Live, client: openai.OpenAI, scratch: Path, suffix: str = "bot") -> Job:
    """A published job with one checkpoint before its model."""
    platform = live.platform
    file = client.files.create(file=("a.jsonl", ROW * 10), purpose="fine-tune")
    caller = authenticate(platform, live.key)
    create_job(platform, caller, JobRequest(BASE, file.id, suffix=suffix))
    with platform.database.write() as tx:
        job = leases.claim_job(
            tx,
            statuses=[JobStatus.VALIDATING],
            owner="w",
            now=platform.clock.now(),
            lease_s=60,
        )
        assert job is not None
        jobs.move_job(tx, job.id, job.fence, JobStatus.QUEUED)
        job = jobs.move_job(tx, job.id, job.fence, JobStatus.RUNNING)
    return publish(platform, job, scratch)


@pytest.fixture
def other(live: Live) -> Iterator[tuple[str, openai.OpenAI]]:
    """Another project of the organization, and a client with a key of it."""
    project = live.http.post("/v1/organization/projects", json={"name": "other"}).json()["id"]
    made = live.http.post(
        f"/v1/organization/projects/{project}/service_accounts", json={"name": "reader"}
    ).json()
    key = made["api_key"]["value"]
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0) as client:
        yield project, client


def say(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello"}]
    )
    return answer.model


def test_a_project_uses_a_model_of_another_as_long_as_it_may(
    live: Live, client: openai.OpenAI, other: tuple[str, openai.OpenAI], tmp_path: Path
) -> None:
    project, reader = other
    name = tuned(live, client, tmp_path).fine_tuned_model or ""
    with pytest.raises(openai.NotFoundError):
        say(reader, name)
    points = client.fine_tuning.checkpoints.permissions
    (granted,) = points.create(name, project_ids=[project]).data
    PermissionCreateResponse.model_validate(granted.model_dump())
    assert points.create(name, project_ids=[project]).data[0].id == granted.id
    assert say(reader, name) == name
    assert name in [model.id for model in reader.models.list()]
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.delete(name)
    file = f"/v1/afina/files-of/{name}?file=adapter_model.safetensors"
    own = {"authorization": f"Bearer {reader.api_key}"}
    assert live.http.get(file).status_code == 200
    assert live.http.get(file, headers=own).status_code == 403, "using is not taking away"
    taken = live.http.get("/v1/afina/export", headers=own, timeout=60).content
    assert b"adapter_model" not in taken
    (listed,) = points.list(name)
    PermissionListResponse.model_validate(listed.model_dump())
    assert listed.project_id == project
    assert not list(points.list(name, project_id="proj_none", order="ascending"))
    gone = points.delete(granted.id, fine_tuned_model_checkpoint=name)
    assert PermissionDeleteResponse.model_validate(gone.model_dump()).deleted
    with pytest.raises(openai.NotFoundError):
        say(reader, name)
    with pytest.raises(openai.NotFoundError):
        points.delete(granted.id, fine_tuned_model_checkpoint=name)


def test_only_an_admin_gives_permissions_and_only_on_models_that_are_there(
    live: Live, client: openai.OpenAI, other: tuple[str, openai.OpenAI], tmp_path: Path
) -> None:
    project, reader = other
    name = tuned(live, client, tmp_path).fine_tuned_model or ""
    with pytest.raises(openai.PermissionDeniedError):
        reader.fine_tuning.checkpoints.permissions.create(name, project_ids=[project])
    points = client.fine_tuning.checkpoints.permissions
    with pytest.raises(openai.NotFoundError):
        points.create("ft:a:b::12345678", project_ids=[project])
    with pytest.raises(openai.NotFoundError):
        points.create(name, project_ids=["proj_none"])
    with pytest.raises(openai.BadRequestError):
        points.create(name, project_ids=[])


def test_an_alias_follows_the_newest_model_and_goes_back(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    first = tuned(live, client, tmp_path / "1", "support").fine_tuned_model or ""
    asked = {"name": "support-bot", "follows": "support"}
    assert live.http.post("/v1/afina/aliases", json=asked).json()["target"] == first
    assert say(client, "support-bot") == first, "an answer names what really ran"
    second = tuned(live, client, tmp_path / "2", "support").fine_tuned_model or ""
    assert say(client, "support-bot") == second
    assert live.http.post("/v1/afina/aliases/support-bot/back").json()["target"] == first
    assert say(client, "support-bot") == first
    third = tuned(live, client, tmp_path / "3", "support").fine_tuned_model or ""
    assert say(client, "support-bot") == first, "who went back stays there"
    assert live.http.post("/v1/afina/aliases/support-bot/back").status_code == 400
    live.http.post("/v1/afina/aliases", json=asked)
    assert say(client, "support-bot") == third
    told = live.http.get("/v1/afina/aliases/support-bot").json()["data"]
    assert [entry["reason"] for entry in told] == ["set", "back", "released", "set"]
    client.models.delete(third)
    with pytest.raises(openai.NotFoundError, match=f"means `{third}`, which is not here any more"):
        say(client, "support-bot")
    assert live.http.post("/v1/afina/aliases/support-bot/back").json()["target"] == second
    with pytest.raises(openai.NotFoundError, match=f"is an alias of `{second}`"):
        client.models.delete("support-bot")
    assert live.http.delete("/v1/afina/aliases/support-bot").json()["target"] is None
    with pytest.raises(openai.NotFoundError, match="`support-bot` does not exist"):
        say(client, "support-bot")
    assert live.http.get("/v1/afina/aliases").json()["data"] == []


def test_an_alias_that_means_no_model_yet_says_what_it_waits_for(
    live: Live, client: openai.OpenAI
) -> None:
    live.http.post("/v1/afina/aliases", json={"name": "early-bot", "follows": "early"})
    with pytest.raises(openai.NotFoundError, match="follows the suffix early, of which no model"):
        say(client, "early-bot")
    live.http.delete("/v1/afina/aliases/early-bot")


def test_an_alias_of_a_base_or_of_an_alias_is_refused_for_what_it_is(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    name = tuned(live, client, tmp_path, "plain").fine_tuned_model or ""
    live.http.post("/v1/afina/aliases", json={"name": "plain-bot", "target": name})
    for target, words in ((BASE, "is a base model"), ("plain-bot", f"that it means: {name}")):
        told = live.http.post("/v1/afina/aliases", json={"name": "other", "target": target})
        assert (told.status_code, told.json()["error"]["param"]) == (400, "target")
        assert words in told.json()["error"]["message"]
    live.http.delete("/v1/afina/aliases/plain-bot")


def test_a_job_for_an_alias_goes_on_from_the_model_that_it_means(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    name = tuned(live, client, tmp_path, "weekly").fine_tuned_model or ""
    asked = {"name": "weekly-bot", "target": name}
    assert live.http.post("/v1/afina/aliases", json=asked).json()["target"] == name
    file = client.files.create(file=("b.jsonl", ROW * 10), purpose="fine-tune")
    # The tune of this test was made on other weights, so it is looked at and refused by its name.
    with pytest.raises(openai.BadRequestError, match=f"`{name}` was tuned on a base model"):
        client.fine_tuning.jobs.create(model="weekly-bot", training_file=file.id)
    live.http.delete("/v1/afina/aliases/weekly-bot")
    with pytest.raises(openai.BadRequestError, match="not available for fine-tuning"):
        client.fine_tuning.jobs.create(model="weekly-bot", training_file=file.id)


def test_aliases_are_refused_by_name(live: Live, other: tuple[str, openai.OpenAI]) -> None:
    for body, status in (
        ({"name": BASE, "follows": "a"}, 400),
        ({"name": "A B", "follows": "a"}, 400),
        ({"name": "a"}, 400),
        ({"name": "a", "follows": "_"}, 400),
        ({"name": "a", "target": "ft:a:b::12345678"}, 404),
    ):
        assert live.http.post("/v1/afina/aliases", json=body).status_code == status
    assert live.http.get("/v1/afina/aliases/none").status_code == 404
    assert live.http.post("/v1/afina/aliases/none/back").status_code == 404
    assert live.http.delete("/v1/afina/aliases/none").status_code == 404


def test_a_model_tells_its_last_day_and_keeps_it(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    name = tuned(live, client, tmp_path).fine_tuned_model or ""
    for id_ in (BASE, name):
        model = Model.model_validate(client.models.retrieve(id_).model_dump())
        assert model.shutdown_date == "2099-01-14"
    settings = settings_for(tmp_path / "other", shutdown_dates={BASE: date(2026, 1, 1)})
    with running(settings) as closed:
        reader = openai.OpenAI(base_url=f"{closed.url}/v1", api_key=closed.key, max_retries=0)
        with reader, pytest.raises(openai.NotFoundError, match="was shut down on 2026-01-01"):
            say(reader, BASE)


def test_deleting_a_model_leaves_its_job(live: Live, client: openai.OpenAI, tmp_path: Path) -> None:
    job = tuned(live, client, tmp_path)
    assert client.models.delete(job.fine_tuned_model or "").deleted
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model == job.fine_tuned_model


def test_a_models_card_is_fetched_beside_its_weights_and_says_the_same(
    live: Live, client: openai.OpenAI, tmp_path: Path
) -> None:
    name = tuned(live, client, tmp_path).fine_tuned_model or ""
    asked = {file: live.http.get(f"/v1/afina/files-of/{name}?file={file}") for file in CARD_FILES}
    assert {answer.status_code for answer in asked.values()} == {200}
    assert asked["card.json"].json()["model"] == name
    readme = live.http.get(f"/v1/afina/models/{name}/card?format=markdown")
    assert readme.headers["content-type"].startswith("text/markdown")
    assert asked["README.md"].text.splitlines()[:8] == readme.text.splitlines()[:8]
    assert "<h1>" in asked["card.html"].text


@pytest.mark.parametrize("verb", ["gate", "hold", "release"])
def test_what_is_done_to_a_model_is_what_was_asked_and_nothing_else(
    live: Live, client: openai.OpenAI, tmp_path: Path, verb: str
) -> None:
    name = tuned(live, client, tmp_path).fine_tuned_model or ""
    path = f"/v1/afina/models/{name}"
    if verb == "release":
        assert live.http.post(f"{path}/hold").json()["state"] == "held"
    refused = live.http.post(f"{path}/{verb}", json={"why": "because"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "why")
    done = live.http.post(f"{path}/{verb}", json={})
    assert done.status_code == 200
    again = live.http.post(f"{path}/{verb}")
    assert (again.status_code, again.json()["error"]["param"]) == (409, "model")
