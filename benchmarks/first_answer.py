"""From creating a job to the first token of its model: 50 chats, three epochs, everything on.

    python -m benchmarks.first_answer [--repeats 3] [--gate]

Starts the whole platform (`afina up`) in an empty data directory with the starter, uploads 50 chats
of about 5,500 tokens together, creates the job with the official client and asks the model as soon
as the job says that it succeeded. Prints where the time went: by the job's own events, and by those
of the trainer. The gate is off, or with `--gate` on: then the gate of one job runs beside the next.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from openai import OpenAI

from afina.settings import child_environment

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
TEXT = (
    "the claim was reported in time and the policy covers damage by water but not by wear so the "
    "clerk asks for the invoice a photo of the pipe and the date of the last repair before paying"
)
WORDS = TEXT.split()
PATIENCE_S = 900.0


def rows(count: int) -> bytes:
    """Chats of about 110 tokens each."""
    source = random.Random(0)
    lines = []
    for _ in range(count):
        question = " ".join(source.choices(WORDS, k=14))
        answer = " ".join(source.choices(WORDS, k=source.randint(30, 62)))
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_platform(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("afina up was not ready")


def one_job(client: OpenAI, number: int, gate: bool) -> tuple[float, list[tuple[float, str]], str]:
    """Seconds to the first token, and what happened when."""
    file = client.files.create(file=(f"chats-{number}.jsonl", rows(50)), purpose="fine-tune")
    began, wall = time.monotonic(), time.time()
    job = client.fine_tuning.jobs.create(
        model="smollm2-135m-instruct",
        training_file=file.id,
        seed=number,
        extra_body={"afina": {"gate": {"policy": "report" if gate else "off"}}},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 3}},
        },
    )
    marks: list[tuple[float, str]] = []
    while job.status not in ("succeeded", "failed", "cancelled"):
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"the job still says {job.status}")
        before = job.status
        time.sleep(0.25)
        job = client.fine_tuning.jobs.retrieve(job.id)
        if job.status != before:
            marks.append((time.monotonic() - began, f"status {job.status}"))
    if job.status != "succeeded" or job.fine_tuned_model is None:
        raise SystemExit(f"the job ended as {job.status}: {job.error}")
    stream = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "Is the pipe covered?"}],
        max_tokens=8,
        stream=True,
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    took = time.monotonic() - began
    marks.append((took, "first token"))
    marks += [(event - wall, f"trainer: {what}") for event, what in trainer_marks(job.id)]
    tokens = f"{job.trained_tokens} tokens trained, batch {job.hyperparameters.batch_size}"
    return took, sorted(marks), tokens


def trainer_marks(job: str) -> list[tuple[float, str]]:
    """When the trainer started, took its first and last step, and was done."""
    run = DATA[0] / "runs" / job
    found = []
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    found.append((lines[0]["time"], "ready"))
    found.append((steps[0]["time"], "step 1"))
    found.append((steps[-1]["time"], f"step {len(steps)}"))
    found.append(((run / "result.json").stat().st_mtime, "result written"))
    return found


DATA: list[Path] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gate", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="afina-first-") as name:
        data = Path(name)
        DATA.append(data)
        shutil.copytree(given.model, data / "models" / given.model.name)
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "afina.cli", "up", "--port", str(port)],
            env=child_environment(AFINA_DATA=str(data), PYTHONUNBUFFERED="1"),
            stdout=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for_platform(url, process)
            key = (data / "api-key").read_text().strip()
            client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
            seconds = []
            for number in range(given.repeats):
                took, marks, tokens = one_job(client, number, given.gate)
                seconds.append(took)
                print(f"job {number + 1}: first token after {took:.1f} s ({tokens})", flush=True)
                for at, what in marks:
                    print(f"  {at:6.1f} s  {what}", flush=True)
        finally:
            process.terminate()
            process.wait(60)
    print(
        f"first token after {statistics.median(seconds):.1f} s "
        f"({min(seconds):.1f} to {max(seconds):.1f})"
    )


if __name__ == "__main__":
    main()
