"""Preparation: a job becomes a run with nothing left open, or a refusal with line and remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from tests.tiny import write_tiny_tokenizer
from tests.unit.pipeline.conftest import Shop

from afina.data.content import compare
from afina.data.shards import Shards
from afina.domain.codec import encode
from afina.domain.jobs import Hyperparameters, Job, JobStatus
from afina.domain.methods import Extension, Tuning, TuningKind
from afina.domain.models import BaseModel
from afina.domain.runs import RunSpec
from afina.inside_settings import EngineSettings, Price, RedactSettings, TrainingSettings
from afina.outside_settings import VllmSettings
from afina.pipeline import served_by
from afina.pipeline.foresight import load_of, rate_of
from afina.pipeline.lanes import PrepareLane
from afina.pipeline.run_files import read_spec
from afina.service import ways
from afina.service.bases import get_base
from afina.service.budgets import set_spend_limit
from afina.service.card_facts import facts_of
from afina.service.files import upload_file
from afina.service.jobs import JobRequest, cancel_job, create_job, pause_job
from afina.service.packing_ahead import packed_run
from afina.serving.testing import ScriptedEngine
from afina.text.renderer import Renderer

CANARY = "zyxwvut"


def chat(number: int, answer: str = "the fox") -> str:
    messages = [
        {"role": "user", "content": f"what says the fox number {number}?"},
        {"role": "assistant", "content": f"{answer} {number}"},
    ]
    return json.dumps({"messages": messages}) + "\n"


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """With a base model that has a tokenizer and a template, and no weights."""
    folder = shop.platform.settings.models / "tiny"
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    record = BaseModel("tiny", "/moved/away", "0" * 64, 1, context_tokens=512)
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    return shop


def upload(shop: Shop, text: str) -> str:
    source = [text.encode()]
    return upload_file(shop.platform, shop.caller, source, "chats.jsonl", "fine-tune").id


def create(shop: Shop, training: str, validation: str | None = None) -> Job:
    request = JobRequest("tiny", training, validation_file=validation, seed=7)
    return create_job(shop.platform, shop.caller, request)


def prepare(shop: Shop, job: Job) -> Job:
    lane = PrepareLane(shop.platform, shop.keeper(), "worker")
    assert lane.work()
    assert not lane.work()
    return shop.job(job.id)


def prepared_spec(shop: Shop, job: Job) -> RunSpec:
    return read_spec(shop.paths(job))


def test_a_good_file_becomes_a_queued_job_and_a_whole_spec(shop: Shop) -> None:
    job = create(shop, upload(shop, "".join(chat(n) for n in range(12))))
    done = prepare(shop, job)
    assert done.status is JobStatus.QUEUED
    assert done.hyperparameters == Hyperparameters(8, 1, 1.0)
    assert [event.message.split(":")[0] for event in shop.events(job)] == [
        "Created fine-tuning job",
        "Validating training file",
        "The training file was not moderated",  # there is no engine
        "Files validated, moving job to queued state",
    ]
    spec = prepared_spec(shop, job)
    assert spec.training.rows == 12
    assert spec.optimizer.total_steps == 96
    assert spec.base.path == str(shop.platform.settings.models / "tiny")
    assert spec.seed == 7
    assert "auto" not in shop.paths(job).spec.read_text()
    with shop.platform.database.read():
        assert shop.claim("trainer").job.id == job.id


@pytest.mark.parametrize(
    ("tuning", "precision"),
    [
        (Tuning(), "bf16"),
        (Tuning("last_layers", layers=1), "bf16"),
        (Tuning("last_layers", layers=1, norm_and_head=True), "fp32"),
        (Tuning("full"), "fp32"),
        (Tuning("dora"), "fp32"),
        (Tuning(dropout=0.1), "fp32"),
        (Tuning(target_modules=("q_proj", "v_proj")), "fp32"),
        (Tuning(base_bits=4), "fp32"),
    ],
)
def test_where_only_kernels_make_bf16_quick_other_runs_are_in_fp32(
    shop: Shop, tuning: Tuning, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "can_have_kernels", lambda: True)
    assert precision_of(shop, tuning) == precision
    monkeypatch.setattr(ways, "can_have_kernels", lambda: False)
    assert precision_of(shop, tuning) == "fp32"


def precision_of(shop: Shop, tuning: Tuning) -> str:
    """Of a run on a base that kernels alone make quick in bf16."""
    folder = shop.platform.settings.models / "tiny"
    capabilities = {"precision": "bf16", "bf16_by": "kernels"}
    record = BaseModel("tiny", "", "0" * 64, 1, context_tokens=512, capabilities=capabilities)
    config = {"max_position_embeddings": 512, "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    training = upload(shop, "".join(chat(n) for n in range(12)))
    request = JobRequest("tiny", training, seed=7, extension=Extension(tuning))
    job = create_job(shop.platform, shop.caller, request)
    assert prepare(shop, job).status is JobStatus.QUEUED
    return prepared_spec(shop, job).precision


def test_parity_prompts_come_by_hash_from_the_validation_rows(shop: Shop) -> None:
    training = upload(shop, "".join(chat(n) for n in range(10)))
    validation = upload(shop, "".join(chat(n, "thou") for n in range(20, 40)))
    job = create(shop, training, validation)
    assert prepare(shop, job).status is JobStatus.QUEUED
    spec = prepared_spec(shop, job)
    renderer = Renderer.load(shop.platform.settings.models / "tiny")
    expected = {tuple(renderer.prompt([json.loads(chat(n))["messages"][0]])) for n in range(20, 40)}
    assert len(spec.parity_prompts) == 8
    assert {prompt.ids for prompt in spec.parity_prompts} <= expected
    hashes = [prompt.row_sha256 for prompt in spec.parity_prompts]
    assert hashes == sorted(hashes)


def test_preparing_again_gives_the_same_bytes(shop: Shop) -> None:
    job = create(shop, upload(shop, "".join(chat(n) for n in range(12))))
    prepare(shop, job)
    first = shop.paths(job).spec.read_bytes()
    again = create(shop, job.training_file)
    prepare(shop, again)
    assert prepared_spec(shop, again) == replace(prepared_spec(shop, job), job_id=again.id)
    assert shop.paths(job).spec.read_bytes() == first


def test_a_bad_row_fails_the_job_by_line_and_never_by_its_text(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = json.dumps({"messages": [{"role": "user", "content": CANARY}]}) + "\n"
    job = create(shop, upload(shop, "".join(chat(n) for n in range(11)) + bad))
    done = prepare(shop, job)
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.param == "training_file"
    assert "12" in done.error.message
    findings = json.loads((shop.paths(job).root / "findings" / "training_file.json").read_text())
    assert findings["findings"][0]["line"] == 12
    told = capsys.readouterr()
    said = json.dumps([encode(done), encode(shop.events(job)), findings]) + told.out + told.err
    assert CANARY not in said


def test_too_few_rows_are_refused_in_the_words_of_the_wire(shop: Shop) -> None:
    done = prepare(shop, create(shop, upload(shop, "".join(chat(n) for n in range(3)))))
    assert done.error is not None
    assert done.error.code == "invalid_n_examples"
    assert done.error.message == (
        "Training file has 3 example(s), but must have at least 10 examples"
    )


def test_a_fault_of_the_validation_file_names_that_file(shop: Shop) -> None:
    training = upload(shop, "".join(chat(n) for n in range(10)))
    done = prepare(shop, create(shop, training, upload(shop, '{"messages": []}\n')))
    assert done.error is not None
    assert done.error.param == "validation_file"


def test_a_base_that_went_away_meanwhile_is_a_plain_error(shop: Shop) -> None:
    job = create(shop, upload(shop, "".join(chat(n) for n in range(10))))
    (shop.platform.settings.models / "tiny" / "afina.json").unlink()
    done = prepare(shop, job)
    assert done.error is not None
    assert done.error.code == "model_not_available"


def test_a_fault_of_ours_fails_the_job_without_details(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("afina.pipeline.prepare.build_shards", broken)
    done = prepare(shop, create(shop, upload(shop, "".join(chat(n) for n in range(10)))))
    assert done.error is not None
    assert done.error.code == "server_error"
    assert CANARY not in done.error.message


def test_findings_and_spec_are_whole_files(shop: Shop) -> None:
    job = create(shop, upload(shop, "".join(chat(n) for n in range(10))))
    prepare(shop, job)
    left = [path for path in shop.paths(job).root.rglob(".*") if path.is_file()]
    assert left == []
    assert Path(prepared_spec(shop, job).training.path).is_dir()


def test_sharded_weights_are_for_supervised_jobs_of_all_weights_alone(shop: Shop) -> None:
    training = TrainingSettings(shard_full_weights=True, processes=2)
    settings = shop.platform.settings.model_copy(update={"training": training})
    shop.platform = replace(shop.platform, settings=settings)
    supervised = upload(shop, "".join(chat(n) for n in range(12)))
    asked = {"full": Extension(tuning=Tuning(kind="full")), "lora": Extension()}
    for kind, extension in asked.items():
        request = JobRequest("tiny", supervised, seed=7, extension=extension)
        job = create_job(shop.platform, shop.caller, request)
        assert prepare(shop, job).status is JobStatus.QUEUED
        assert prepared_spec(shop, job).sharded == (kind == "full")
    rows = [json.loads(chat(n))["messages"] for n in range(12)]
    pairs = [
        {
            "input": {"messages": row[:1]},
            "preferred_output": row[1:],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for row in rows
    ]
    file = upload(shop, "".join(json.dumps(pair) + "\n" for pair in pairs))
    request = JobRequest("tiny", file, method="dpo", extension=asked["full"])
    done = prepare(shop, create_job(shop.platform, shop.caller, request))
    assert done.error is not None
    assert done.error.code == "unsupported_parameter"
    assert "AFINA_TRAINING__SHARD_FULL_WEIGHTS" in done.error.message


def test_with_the_setting_personal_data_is_gone_before_anything_is_tokenised(shop: Shop) -> None:
    redact = RedactSettings(enabled=True)
    settings = shop.platform.settings.model_copy(update={"redact": redact})
    shop.platform = replace(shop.platform, settings=settings)
    rows = "".join(chat(n, "ask zyxw@vut.example or 12345678Z, fox") for n in range(12))
    job = create(shop, upload(shop, rows))
    assert prepare(shop, job).status is JobStatus.QUEUED
    said = [event.message for event in shop.events(job)]
    assert "Redacted 12 email, 12 nif in 12 of 12 rows of the training file" in said
    spec = prepared_spec(shop, job)
    ids, _ = Shards.open(Path(spec.training.path)).row(0)
    text = Renderer.load(shop.platform.settings.models / "tiny").tokenizer.decode(ids.tolist())
    assert "<EMAIL_1> or <NIF_1>, fox 0" in text
    audit = shop.paths(job).root / "findings" / "training_file.redacted.jsonl"
    assert len(audit.read_text().splitlines()) == 24
    for path in shop.platform.settings.data.rglob("*"):
        if path.is_file() and "blobs" not in path.parts:
            assert b"zyxw@vut" not in path.read_bytes(), path


def test_a_job_that_would_break_the_budget_fails_before_it_trains(shop: Shop) -> None:
    prices = {"tiny": Price(training=Decimal(1_000_000))}
    settings = shop.platform.settings.model_copy(update={"prices": prices})
    shop.platform = replace(shop.platform, settings=settings)
    set_spend_limit(shop.platform, shop.caller, None, 100)
    job = prepare(shop, create(shop, upload(shop, "".join(chat(n) for n in range(10)))))
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "exceeded_quota"
    assert "$1.00 is left" in job.error.message


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_tune_that_vllm_could_not_serve_is_refused_before_it_is_trained(
    shop: Shop, kind: TuningKind, tmp_path: Path
) -> None:
    vllm = VllmSettings(url="http://127.0.0.1:8000")
    settings = shop.platform.settings.model_copy(update={"engine": EngineSettings(vllm=vllm)})
    extension = Extension(tuning=Tuning(kind))
    training = upload(shop, "".join(chat(i) for i in range(12)))
    job = create_job(shop.platform, shop.caller, JobRequest("tiny", training, extension=extension))
    assert served_by.refusal(settings, job) is None  # the engine is away: nobody knows
    with ScriptedEngine(settings.engine_socket) as engine:
        assert served_by.refusal(settings, job) is None  # this engine computes the base itself
        engine.elsewhere = {"tiny": "vllm 0.32.0 at http://127.0.0.1:8000"}
        refused = served_by.refusal(settings, job)
    if kind == "lora":
        assert refused is None
    else:
        assert refused is not None
        assert kind in refused.message
        assert "AFINA_ENGINE__VLLM__MODELS" in refused.message


def test_a_queued_job_says_when_it_will_end_after_those_that_are_ahead(shop: Shop) -> None:
    folder = shop.platform.settings.models / "tiny"
    record = json.loads((folder / "afina.json").read_text())
    assert prepare(shop, create(shop, upload(shop, chat(1) * 12))).estimated_finish is None
    record["capabilities"] = {"train_tokens_per_s": 100.0}
    (folder / "afina.json").write_text(json.dumps(record))
    before = shop.platform.clock.now()
    first = prepare(shop, create(shop, upload(shop, chat(2) * 12)))
    second = prepare(shop, create(shop, upload(shop, chat(3) * 12)))
    assert first.estimated_finish is not None
    assert second.estimated_finish is not None
    spec = prepared_spec(shop, first)
    base = get_base(shop.platform, spec.base.id)
    rate = rate_of(shop.platform.settings, base, spec)
    assert rate is not None
    assert rate.tokens_per_s == 100.0
    takes = rate.training_seconds(load_of(spec, packed_run(spec)))
    assert first.estimated_finish - before == pytest.approx(takes + 10, abs=5)
    assert second.estimated_finish - first.estimated_finish == pytest.approx(takes + 10, abs=5)
    paused = pause_job(shop.platform, shop.caller, first.id)
    cancelled = cancel_job(shop.platform, shop.caller, second.id)
    assert (paused.estimated_finish, cancelled.estimated_finish) == (None, None)


def test_what_rows_say_together_is_warned_of_and_stops_no_job(shop: Shop) -> None:
    rows = [chat(n) for n in range(12)]
    wavers = rows[3].replace("the fox 3", "a dog entirely")
    training = upload(shop, "".join([*rows, wavers]))
    validation = upload(shop, "".join([rows[5], chat(40, "thou"), rows[7]]))
    job = create(shop, training, validation)
    assert prepare(shop, job).status is JobStatus.QUEUED
    warned = [event for event in shop.events(job) if event.said and event.said[0].name == "warned"]
    assert [event.level for event in warned] == ["warn", "warn"]
    assert [event.message for event in warned] == [
        "The check of the training file warns: contradiction (line 13): Another row asks the same "
        "and is answered differently; the model learns to waver. Decide for one answer",
        "The check of the validation file warns: 2 × leaked-row (lines 1, 3): This validation row is "
        "in the training file too, so the validation loss flatters. Take it out of one of them",
    ]
    assert warned[1].data == {
        "file": "validation_file",
        "findings": {"leaked-row": 2},
        "lines": {"leaked-row": [1, 3]},
        "meanings": {
            "leaked-row": "This validation row is in the training file too, so the validation "
            "loss flatters. Take it out of one of them.",
        },
    }
    kept = shop.paths(job).root / "findings" / "training_file.warnings.json"
    (found,) = json.loads(kept.read_text())["findings"]
    assert (found["rule"], found["line"], found["other_line"]) == ("contradiction", 13, 4)
    assert "dog" not in kept.read_text(), "findings hold lines, never text"
    assert not list(shop.paths(job).root.glob("afina-content-*"))


def test_a_warning_counts_every_row_and_names_the_first_lines(shop: Shop) -> None:
    rows = [chat(n) for n in range(12)]
    job = create(shop, upload(shop, "".join([*rows, *rows])))
    assert prepare(shop, job).status is JobStatus.QUEUED
    (warned,) = [e for e in shop.events(job) if e.said and e.said[0].name == "warned"]
    assert warned.message == (
        "The check of the training file warns: 12 × duplicate-row (lines 13, 14, 15, 16, 17, …): "
        "The same as an earlier row. Keep one of them"
    )
    assert warned.data["findings"] == {"duplicate-row": 12}


def test_rows_that_look_too_much_alike_to_be_compared_are_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_MAX_COMPARED", 0)
    long = "the story of the fox that went over the hill and met the dog by the river at night "
    rows = [chat(n, f"{long * 3}{chr(97 + n) * 3}") for n in range(12)]
    job = create(shop, upload(shop, "".join(rows)))
    assert prepare(shop, job).status is JobStatus.QUEUED
    (warned,) = [e for e in shop.events(job) if e.said and e.said[0].name == "warned"]
    assert warned.message.endswith("so many rows look alike that copies may have been missed")


def test_the_card_counts_what_rows_say_together(shop: Shop) -> None:
    rows = [chat(n) for n in range(12)]
    job = create(shop, upload(shop, "".join([*rows, rows[3].replace("the fox 3", "a dog")])))
    prepare(shop, job)
    (file,) = facts_of(shop.platform, job.id)
    assert file["findings"] == {"contradiction": 1}
