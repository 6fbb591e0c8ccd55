"""Walks the whole road with the official client and judges every answer with the client's types.

Standalone: it imports the standard library and `openai` alone, so that each version of the client
runs it in an environment of its own:

    python walk.py --base-url http://127.0.0.1:8383/v1 --api-key KEY --model smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import openai
from openai import OpenAI
from openai.types import FileDeleted, FileObject, Model, ModelDeleted
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import BaseModel, ValidationError

ALLOWED = {
    ("FineTuningJob", "status", "paused"),
    ("FineTuningJobEvent", "type", "moderation_checks"),
}
"""Values that the hosted service sends although the client's types do not know them."""
OVER = ("succeeded", "failed", "cancelled")
ROWS = 12


class Walk:
    """One walk against one server."""

    def __init__(self, client: OpenAI, model: str, timeout_s: float) -> None:
        self.client = client
        self.model = model
        self.timeout_s = timeout_s
        self.judged = 0

    def judge(self, kind: type[BaseModel], value: dict[str, Any]) -> Any:
        """`value` as a `kind`, strictly: missing fields and unknown values are faults."""
        try:
            found = kind.model_validate(value)
        except ValidationError as error:
            for fault in error.errors():
                if (kind.__name__, fault["loc"][0], fault["input"]) not in ALLOWED:
                    raise AssertionError(f"{kind.__name__}: {fault}") from error
            found = kind.model_construct(**value)
        self.judged += 1
        return found

    def ask(self, kind: type[BaseModel], call: Any, *given: Any, **named: Any) -> Any:
        """Calls an operation and judges the raw JSON of its answer."""
        raw = call(*given, **named)
        assert raw.headers["x-request-id"].startswith("req_"), "no x-request-id"
        assert raw.headers["openai-processing-ms"].isdecimal()
        raw.parse()
        return self.judge(kind, json.loads(raw.http_response.content))

    def ask_list(self, kind: type[BaseModel], call: Any, *given: Any, **named: Any) -> list[Any]:
        """Calls a listing operation and judges each item."""
        body = json.loads(call(*given, **named).http_response.content)
        assert body["object"] == "list"
        return [self.judge(kind, item) for item in body["data"]]

    def files(self) -> tuple[Any, Any]:
        """Uploads two files and reads them in every way."""
        raw = self.client.files.with_raw_response
        content = training_file()
        training = self.ask(
            FileObject, raw.create, file=("train.jsonl", content), purpose="fine-tune"
        )
        validation = self.ask(
            FileObject,
            raw.create,
            file=("valid.jsonl", training_file(3)),
            purpose="fine-tune",
            extra_body={"expires_after": {"anchor": "created_at", "seconds": 3600}},
        )
        assert training.bytes == len(content)
        assert validation.expires_at == validation.created_at + 3600
        assert self.client.files.wait_for_processing(training.id).status == "processed"
        assert self.ask(FileObject, raw.retrieve, training.id).filename == "train.jsonl"
        assert self.client.files.content(training.id).read() == content
        listed = self.ask_list(FileObject, raw.list, purpose="fine-tune")
        assert [f.id for f in listed[:2]] == [validation.id, training.id]
        paged = [f.id for f in self.client.files.list(limit=1, order="asc")]
        assert paged.index(training.id) < paged.index(validation.id)
        return training, validation

    def job(self, training: str, validation: str) -> Any:
        """Creates a job and follows it to its end."""
        raw = self.client.fine_tuning.jobs.with_raw_response
        job = self.ask(
            FineTuningJob,
            raw.create,
            model=self.model,
            training_file=training,
            validation_file=validation,
            suffix="walk",
            seed=7,
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}},
            },
            metadata={"purpose": "walk"},
        )
        assert job.error is None
        assert job.status == "validating_files"
        found = self.ask_list(FineTuningJob, raw.list, extra_query={"metadata[purpose]": "walk"})
        assert job.id in [j.id for j in found]
        assert not self.ask_list(FineTuningJob, raw.list, extra_query={"metadata[purpose]": "no"})
        job = self.follow(job.id)
        assert job.status == "succeeded", f"{job.status}: {job.error}"
        assert job.error is None
        assert job.trained_tokens > 0
        assert job.method.supervised.hyperparameters.n_epochs == 2
        return job

    def follow(self, job_id: str) -> Any:
        """The job once it is over."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            raw = self.client.fine_tuning.jobs.with_raw_response
            job = self.ask(FineTuningJob, raw.retrieve, job_id)
            if job.status in OVER:
                return job
            assert time.monotonic() < deadline, f"still {job.status} after {self.timeout_s} s"
            time.sleep(0.2)

    def story(self, job: Any) -> str:
        """Reads events, checkpoints and results; gives a checkpoint's name."""
        raw = self.client.fine_tuning.jobs.with_raw_response
        events = self.ask_list(FineTuningJobEvent, raw.list_events, job.id, limit=100)
        paged = [e.id for e in self.client.fine_tuning.jobs.list_events(job.id, limit=3)]
        assert paged == [e.id for e in events], "pages and list differ"
        messages = [e.message for e in reversed(events)]
        assert messages[0] == f"Created fine-tuning job: {job.id}"
        assert "The job has successfully completed" in messages  # the gate may speak after it
        metrics = [e.data for e in reversed(events) if e.type == "metrics"]
        assert [m["step"] for m in metrics] == list(range(1, len(metrics) + 1))
        assert all(m["train_loss"] > 0 for m in metrics)
        points = self.client.fine_tuning.jobs.checkpoints.with_raw_response
        kept = self.ask_list(FineTuningJobCheckpoint, points.list, job.id)
        assert kept, "no checkpoints"
        assert [c.step_number for c in kept] == sorted((c.step_number for c in kept), reverse=True)
        results = self.client.files.content(job.result_files[0]).read()
        assert base64.b64decode(results, validate=True).startswith(b"step,train_loss")
        return str(kept[-1].fine_tuned_model_checkpoint)

    def chat(self, model: str) -> None:
        """Asks a model, whole and streamed."""
        messages: Any = [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "What is the colour of the sky?"},
        ]
        raw = self.client.chat.completions.with_raw_response
        how: Any = {"model": model, "messages": messages, "max_tokens": 8}
        whole = self.ask(ChatCompletion, raw.create, **how, temperature=0, logprobs=True, n=2)
        assert whole.model == model
        assert len(whole.choices) == 2
        assert whole.choices[0].message.content == whole.choices[1].message.content
        assert whole.choices[0].logprobs.content
        assert whole.usage.completion_tokens <= 16
        with self.client.chat.completions.with_streaming_response.create(
            **how, temperature=0, stream=True, stream_options={"include_usage": True}
        ) as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [
            self.judge(ChatCompletionChunk, json.loads(line.removeprefix("data: ")))
            for line in lines[:-1]
        ]
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert said == whole.choices[0].message.content, "streamed and whole answers differ"
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens

    def models(self, tuned: str, checkpoint: str) -> None:
        """Lists and reads models."""
        raw = self.client.models.with_raw_response
        listed = [m.id for m in self.ask_list(Model, raw.list)]
        assert {self.model, tuned, checkpoint} <= set(listed), listed
        assert self.ask(Model, raw.retrieve, tuned).id == tuned

    def cancelled_job(self, training: str) -> None:
        """Cancels a job that has just been made."""
        raw = self.client.fine_tuning.jobs.with_raw_response
        job = self.ask(FineTuningJob, raw.create, model=self.model, training_file=training)
        self.ask(FineTuningJob, raw.cancel, job.id)
        assert self.follow(job.id).status == "cancelled"

    def refusals(self) -> None:
        """What is not offered is refused by name."""
        messages: Any = [{"role": "user", "content": "Hello"}]
        refused(
            "audio",
            lambda: self.client.chat.completions.create(
                model=self.model, messages=messages, audio={"format": "wav", "voice": "ash"}
            ),
        )
        refused(
            "n_epochz",
            lambda: self.client.chat.completions.create(
                model=self.model, messages=messages, extra_body={"n_epochz": 1}
            ),
        )
        error = failure(
            openai.NotFoundError,
            lambda: self.client.images.generate(prompt="A hat"),
        )
        assert "Images" in error.message, error.message

    def deletions(self, file_ids: Iterable[str], models: Iterable[str]) -> None:
        """Deletes everything; afterwards it is gone."""
        for model in models:
            gone = self.ask(ModelDeleted, self.client.models.with_raw_response.delete, model)
            assert gone.deleted
            error = failure(openai.NotFoundError, partial(self.client.models.retrieve, model))
            assert error.code == "model_not_found"
        for file_id in file_ids:
            assert self.ask(
                FileDeleted, self.client.files.with_raw_response.delete, file_id
            ).deleted


def refused(param: str, call: Callable[[], object]) -> None:
    """Asserts a 400 that names `param`."""
    error = failure(openai.BadRequestError, call)
    assert error.param == param, f"{param}: {error.param}, {error.message}"


def failure(kind: type[openai.APIStatusError], call: Callable[[], object]) -> openai.APIStatusError:
    """The error of that kind that `call` must raise."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def training_file(rows: int = ROWS) -> bytes:
    """A small training file."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} and {n}?"},
                {"role": "assistant", "content": f"Verily, it is {2 * n}."},
            ]
        }
        for n in range(rows)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def main() -> int:
    """Walks; says each step on a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--timeout", type=float, default=600.0)
    given = parser.parse_args()
    client = OpenAI(base_url=given.base_url, api_key=given.api_key, max_retries=0)
    walk = Walk(client, given.model, given.timeout)

    def say(text: str) -> None:
        sys.stdout.write(f"[openai {openai.__version__}] {text}\n")
        sys.stdout.flush()

    training, validation = walk.files()
    say(f"files: {training.id}, {validation.id}")
    walk.chat(given.model)
    say("the base answers, whole and streamed")
    job = walk.job(training.id, validation.id)
    say(f"job: {job.id} {job.status}, {job.trained_tokens} tokens")
    checkpoint = walk.story(job)
    walk.models(job.fine_tuned_model, checkpoint)
    for model in (job.fine_tuned_model, checkpoint):
        walk.chat(model)
    say(f"{job.fine_tuned_model} and its checkpoint answer")
    walk.cancelled_job(training.id)
    walk.refusals()
    walk.deletions((training.id, validation.id), (checkpoint, job.fine_tuned_model))
    say(f"done: {walk.judged} answers judged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
