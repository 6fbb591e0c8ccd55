"""Files and jobs as the official client sees them: order of fields, pages, retries, the ledger."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types import FileObject, Model
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from tests.contract.live import ALIAS, BASE, Live, running, settings_for
from tests.contract.walk import training_file

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.files import Purpose, StoredFile
from afina.service.files import add_file
from afina.service.keys import authenticate
from afina.service.platform import Platform


def upload(client: openai.OpenAI, name: str = "train.jsonl", rows: int = 12) -> FileObject:
    return client.files.create(file=(name, training_file(rows)), purpose="fine-tune")


def test_a_files_fields_may_come_in_any_order(live: Live) -> None:
    row = training_file(1)
    parts: list[tuple[str, Any]] = [
        ("file", ("a.jsonl", row)),
        ("expires_after[seconds]", (None, "7200")),
        ("purpose", (None, "fine-tune")),
        ("expires_after[anchor]", (None, "created_at")),
    ]
    for order in (parts, parts[::-1]):
        answer = live.http.post("/v1/files", files=order)
        assert answer.status_code == 200, answer.text
        file = FileObject.model_validate(answer.json())
        assert file.expires_at == file.created_at + 7200
        assert file.bytes == len(row)


def test_a_files_name_may_have_letters_of_any_script(client: openai.OpenAI) -> None:
    for name in ("datos de ajuste.jsonl", "perguntas-ção.jsonl", "例.jsonl", 'a "b".jsonl'):
        assert client.files.retrieve(upload(client, name).id).filename.endswith(".jsonl")
    assert upload(client, "例.jsonl").filename == "例.jsonl"
    for path in ("/home/ana/train.jsonl", "../../train.jsonl", "C:\\data\\train.jsonl"):
        assert upload(client, path).filename == "train.jsonl", "paths of their machine stay there"


def test_a_jobs_tables_come_as_base64_and_its_report_as_it_is(
    live: Live, client: openai.OpenAI
) -> None:
    caller = authenticate(live.platform, client.api_key)
    for name, raw in (("step_metrics.csv", b"step\n"), ("training_file.moderation.json", b"{}\n")):
        file = kept_result(live.platform, caller, name, raw)
        wanted = base64.b64encode(raw) if name.endswith(".csv") else raw
        assert client.files.content(file).read() == wanted


def kept_result(platform: Platform, caller: Caller, name: str, raw: bytes) -> str:
    staged = platform.blobs.stage([raw])
    file = StoredFile(
        platform.ids.new(ids.FILE),
        caller.project_id,
        name,
        Purpose.FINE_TUNE_RESULTS,
        len(raw),
        staged.sha256,
        platform.now(),
    )
    with platform.database.write() as tx:
        add_file(platform, tx, caller, file, staged)
    return file.id


def test_a_large_file_comes_back_as_it_was(client: openai.OpenAI) -> None:
    content = training_file(20_000)
    assert len(content) > 2_000_000
    file = client.files.create(file=("big.jsonl", content), purpose="fine-tune")
    assert client.files.content(file.id).read() == content


def test_user_data_may_be_anything(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.bin", bytes(range(256))), purpose="user_data")
    assert client.files.content(file.id).read() == bytes(range(256))


def test_pages_of_files_show_each_file_once(own_live: Live) -> None:
    with openai.OpenAI(base_url=f"{own_live.url}/v1", api_key=own_live.key) as client:
        made = [upload(client, f"{n}.jsonl", 1).id for n in range(5)]
        assert [f.id for f in client.files.list(limit=2)] == made[::-1]
        assert [f.id for f in client.files.list(limit=2, order="asc")] == made
        assert [f.id for f in client.files.list(purpose="user_data")] == []
        body = own_live.http.get("/v1/files?limit=2").json()
        assert (body["first_id"], body["last_id"]) == (made[4], made[3])
        assert body["has_more"] is True


def test_a_deleted_file_is_gone(client: openai.OpenAI) -> None:
    file = upload(client)
    assert client.files.delete(file.id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(file.id)
        assert file.id in refused.value.message


def test_a_new_job_validates_and_is_healthy(client: openai.OpenAI) -> None:
    file = upload(client)
    job = client.fine_tuning.jobs.create(
        model=ALIAS,
        training_file=file.id,
        suffix="My Model_v2",
        seed=5,
        hyperparameters={"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5},
        metadata={"team": "claims"},
    )
    strict = FineTuningJob.model_validate(job.model_dump())
    assert strict.error is None
    assert strict.model == BASE
    assert strict.seed == 5
    assert strict.hyperparameters.n_epochs == 3
    assert strict.hyperparameters.batch_size == "auto"
    assert strict.hyperparameters.learning_rate_multiplier == 0.5
    assert strict.metadata == {"team": "claims"}
    assert strict.status == "validating_files"
    assert strict.model_dump()["user_provided_suffix"] == "My Model_v2"
    assert strict.model_dump()["afina"]["suffix"] == "my-model-v2"
    assert strict.organization_id.startswith("org-")
    events = client.fine_tuning.jobs.list_events(job.id).data
    for event in events:
        FineTuningJobEvent.model_validate(event.model_dump())
    assert [e.message for e in reversed(events)] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {file.id}",
    ]


def test_jobs_are_found_by_their_metadata(client: openai.OpenAI, live: Live) -> None:
    file = upload(client)
    plain = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    red = client.fine_tuning.jobs.create(
        model=BASE, training_file=file.id, metadata={"colour": "red", "size": "1"}
    )
    found = client.fine_tuning.jobs.list(metadata={"colour": "red"})
    assert red.id in [j.id for j in found]
    assert plain.id not in [j.id for j in client.fine_tuning.jobs.list(metadata={"colour": "red"})]
    without = live.http.get("/v1/fine_tuning/jobs?metadata=null").json()["data"]
    assert plain.id in [j["id"] for j in without]
    assert red.id not in [j["id"] for j in without]


def test_a_waiting_job_is_cancelled_at_once_and_not_twice(client: openai.OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=upload(client).id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.APIStatusError) as refused:
        client.fine_tuning.jobs.cancel(job.id)
    assert refused.value.status_code in (400, 409)
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_the_same_idempotency_key_gives_the_same_job(client: openai.OpenAI) -> None:
    file = upload(client)
    headers = {"Idempotency-Key": f"once-{file.id}"}
    first, second = (
        client.fine_tuning.jobs.create(model=BASE, training_file=file.id, extra_headers=headers)
        for _ in range(2)
    )
    assert first.id == second.id
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(
            model=BASE, training_file=file.id, seed=1, extra_headers=headers
        )
    assert refused.value.param == "Idempotency-Key"


def test_a_retry_by_the_client_is_no_second_job(live: Live, client: openai.OpenAI) -> None:
    body = json.dumps({"model": BASE, "training_file": upload(client).id}).encode()

    def create(retries: str) -> str:
        headers = {"content-type": "application/json", "x-stainless-retry-count": retries}
        return str(
            live.http.post("/v1/fine_tuning/jobs", content=body, headers=headers).json()["id"]
        )

    first = create("0")
    assert create("1") == first
    assert create("0") != first


def test_the_client_retries_a_create_whose_answer_was_lost(live: Live) -> None:
    class Lossy(httpx2.HTTPTransport):
        lost = False

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response = super().handle_request(request)
            if request.url.path.endswith("/jobs") and not self.lost:
                self.lost = True
                response.read()
                raise httpx2.ReadError("the answer was lost", request=request)
            return response

    http = httpx2.Client(transport=Lossy(), trust_env=False)
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, http_client=http) as client:
        file = upload(client)
        job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
        made = [j for j in client.fine_tuning.jobs.list(limit=100) if j.training_file == file.id]
    assert [j.id for j in made] == [job.id]


def test_models_are_listed_and_their_names_may_be_any_text(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [m.id for m in listed] == [BASE]
    Model.model_validate(listed[0].model_dump())
    for name in ("ft:x:org::abcdefgh", "owner/name", "a b", "100%"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve(name)
        assert refused.value.code == "model_not_found"


def test_keys_are_made_shown_once_and_revoked(live: Live) -> None:
    made = live.http.post("/v1/afina/keys", json={"name": "second", "expires_after_s": 600}).json()
    assert made["secret"].startswith("sk-afina-")
    assert made["expires_at"] == made["created_at"] + 600
    own = {"authorization": f"Bearer {made['secret']}"}
    assert live.http.get("/v1/models", headers=own).status_code == 200
    listed = live.http.get("/v1/afina/keys").json()["data"]
    assert made["id"] in [key["id"] for key in listed]
    assert made["secret"] not in json.dumps(listed)
    assert live.http.delete(f"/v1/afina/keys/{made['id']}").json()["revoked_at"]
    assert live.http.get("/v1/models", headers=own).status_code == 401


def test_usage_ledger_bases_and_models_are_told(live: Live) -> None:
    assert live.http.get("/v1/afina/usage?group_by=model,day").json()["data"] == []
    assert live.http.get("/v1/afina/ledger").json()["has_more"] is False
    base = live.http.get("/v1/afina/bases").json()["data"][0]
    assert (base["id"], base["aliases"]) == (BASE, [ALIAS])
    assert base["capabilities"]["train_tokens_per_s"] == 1000.0
    assert live.http.get(f"/v1/afina/models/{BASE}").json()["kind"] == "base"
    refused = live.http.get(f"/v1/afina/files-of/{BASE}?file=config.json")
    assert refused.status_code == 400


def test_the_export_is_a_tar_of_all_that_the_project_owns(tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as live:
        with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key) as client:
            upload(client)
        raw = live.http.get("/v1/afina/export", timeout=60).content
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            names = tar.getnames()
        assert names[-1].endswith("manifest.json")
        assert any("file-" in name for name in names)
        assert list((tmp_path / "uploads").iterdir()) == []


def test_a_job_that_is_over_can_be_deleted_for_good(live: Live, client: openai.OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=upload(client).id)
    assert live.http.delete(f"/v1/afina/jobs/{job.id}").status_code == 409
    client.fine_tuning.jobs.cancel(job.id)
    assert live.http.delete(f"/v1/afina/jobs/{job.id}").json()["deleted"] is True
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(job.id)


def test_an_estimate_takes_the_body_of_a_job_and_creates_nothing(
    live: Live, client: openai.OpenAI
) -> None:
    file = upload(client)
    before = live.http.get("/v1/fine_tuning/jobs").json()["data"]

    def ask(**body: Any) -> Any:
        asked = {"model": ALIAS, "training_file": file.id} | body
        return live.http.post("/v1/afina/jobs/estimate", json=asked)

    plain = ask().json()
    assert (plain["object"], plain["model"], plain["method"]) == (
        "afina.estimate",
        BASE,
        "supervised",
    )
    assert plain["trained_tokens"] == plain["tokens_per_epoch"] * plain["epochs"]
    assert plain["hyperparameters"]["n_epochs"] == plain["epochs"]
    full = ask(afina={"tuning": {"kind": "full"}}, hyperparameters={"n_epochs": 2}).json()
    assert (full["tuning"], full["epochs"]) == ({"kind": "full"}, 2)
    for body, param in (
        ({"afina": {"tuning": {"kind": "full", "rank": 4}}}, "afina.tuning.rank"),
        ({"afina": {"tuning": {"knid": "full"}}}, "afina.tuning.knid"),
        ({"method": {"type": "dpo"}}, "method"),
        ({"training_file": "file-gone"}, "training_file"),
        ({"validation_file": "file-gone"}, "validation_file"),
        ({"suffix": "***"}, "suffix"),
    ):
        refused = ask(**body)
        assert refused.status_code in (400, 404)
        assert refused.json()["error"]["param"] == param
    assert live.http.get("/v1/fine_tuning/jobs").json()["data"] == before
