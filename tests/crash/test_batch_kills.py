"""A worker that is killed at any moment of a batch: each custom_id stands once in the output, and
each line once in the ledger."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.live import BASE, settings_for
from tests.platforms import first_caller

from afina.domain.batches import BatchStatus
from afina.pipeline.journal import JournalDrain
from afina.service.batches import NewBatch, create_batch, get_batch
from afina.service.files import open_file, upload_file
from afina.service.platform import Platform
from afina.service.usage import list_ledger, record_inference
from afina.serving.testing import ScriptedEngine

ROOT = Path(__file__).parent.parent.parent
LINES = 120
WORKER = """
import sys, os
from pathlib import Path
from afina.domain.ids import SYSTEM_IDS
from afina.pipeline import batches
from afina.pipeline.identity import WorkerIdentity
from afina.service.platform import Platform
from afina.settings import Settings
batches.GROUP, batches.TICK_S = 5, 0.01
write = batches.BatchRun._write
def told(self, results):
    print("before", flush=True)
    write(self, results)
    print("after", flush=True)
batches.BatchRun._write = told
platform = Platform.open(Settings.load(data=Path(sys.argv[1])))
owner = str(WorkerIdentity.of_this_process(SYSTEM_IDS, os.getpid()))
lane = batches.BatchLane(platform, owner, lambda: False)
print("begin", flush=True)
while not lane.work():
    pass
"""


def work_and_be_killed(data: Path, moments: int) -> bool:
    """Runs a worker and kills it after it has said `moments` things; whether it was done before."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert process.stdout is not None
    over = False
    for _ in range(moments):
        if not process.stdout.readline():
            over = True
            break
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), err
    return over


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_each_custom_id_stands_once_whatever_is_killed(tmp_path: Path, kills: int) -> None:
    settings = settings_for(tmp_path)
    chance = random.Random(11)
    platform = Platform.open(settings)
    caller = first_caller(platform)
    asked = []
    for number in range(LINES):
        body = {"model": BASE, "messages": [{"role": "user", "content": f"number {number}"}]}
        asked.append(
            {
                "custom_id": f"id-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
        )
    text = "\n".join(json.dumps(item) for item in asked).encode()
    file = upload_file(platform, caller, [text], "batch.jsonl", "batch")
    settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    with ScriptedEngine(settings.engine_socket, settings.journal):
        batch = create_batch(platform, caller, NewBatch(file.id, "/v1/chat/completions"))

        def is_over() -> bool:
            # Whoever was killed may have ended it before: the next one would wait for ever.
            return get_batch(platform, caller, batch.id).status is BatchStatus.COMPLETED

        for _ in range(kills):
            if is_over() or work_and_be_killed(tmp_path, chance.randrange(1, 14)):
                break
        for _ in range(100):
            if is_over():
                break
            work_and_be_killed(tmp_path, 10_000)
    done = get_batch(platform, caller, batch.id)
    assert (done.status, done.completed, done.failed) == (BatchStatus.COMPLETED, LINES, 0)
    _, handle = open_file(platform, caller, done.output_file_id or "")
    with handle:
        found = [json.loads(line) for line in handle]
    assert [item["custom_id"] for item in found] == [f"id-{n}" for n in range(LINES)]
    JournalDrain(settings.journal, lambda records: record_inference(platform, records)).drain()
    entries = list_ledger(platform, caller, limit=1000).data
    billed = {e.request_id: (e.prompt_tokens, e.completion_tokens) for e in entries}
    assert len(entries) == len(billed) == LINES
    for item in found:
        usage = item["response"]["body"]["usage"]
        used = (usage["prompt_tokens"], usage["completion_tokens"])
        assert billed[item["response"]["request_id"]] == used
    platform.close()
