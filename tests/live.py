"""A real platform for tests: `afina up` in a data directory of the test's own, on a tiny model.

`LivePlatform` starts and kills its processes and speaks HTTP to it as a patient client does: a
connection that breaks or a 5xx is tried again, a create carries an Idempotency-Key.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from afina.pipeline.identity import ProcessMark

BASE: Final = "tiny"
PATIENCE_S: Final = 180.0
PARTS: Final = ("trainer", "worker", "engine", "api", "supervisor")


def chats(count: int) -> bytes:
    """Training rows of a few words each."""
    rows = []
    for number in range(count):
        question = {"role": "user", "content": f"what says the fox number {number}?"}
        answer = {"role": "assistant", "content": f"the fox jumps {number} over the lazy dog"}
        rows.append(json.dumps({"messages": [question, answer]}))
    return ("\n".join(rows) + "\n").encode()


def wait_until(what: str, condition: Any, patience_s: float = PATIENCE_S) -> Any:
    """What `condition` gives once it gives something true; fails with `what` after a while."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LivePlatform:
    """`afina up` and what it started."""

    def __init__(self, data: Path, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.port = 0
        self._environment = {
            **os.environ,
            "AFINA_TRAINING__PRECISION": "fp32",
            "AFINA_TRAINING__THREADS": "1",
            "AFINA_ENGINE__THREADS": "1",
            **(environment or {}),
        }
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LivePlatform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the supervisor; returns when the platform answers."""
        command = [sys.executable, "-m", "afina.cli", "up", "--data", str(self.data)]
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.data / "up.txt").open("ab") as out:
            self._up = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment,
            )  # fmt: skip
        wait_until("the platform is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self._up is not None
        assert self._up.poll() is None, (self.data / "up.txt").read_text()
        try:
            told = json.loads((self.data / "server.json").read_text())
        except (OSError, ValueError):
            return False
        if told["pid"] != self._up.pid:
            return False
        self.port = int(told["url"].rpartition(":")[2])
        try:
            return self.request("GET", "/health").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit code."""
        if self._up is None:
            return 0
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
        code = self._up.wait(60)
        self._up = None
        return code

    def process(self, part: str) -> psutil.Process | None:
        """The living process of a part, if there is one."""
        if self._up is None or self._up.poll() is not None:
            return None
        supervisor = psutil.Process(self._up.pid)
        if part == "supervisor":
            return supervisor
        word = "afina.training" if part == "trainer" else part
        try:
            for process in supervisor.children(recursive=part == "trainer"):
                if word in process.cmdline()[:4]:
                    return process
        except psutil.NoSuchProcess:
            pass
        return None

    def family(self) -> list[ProcessMark]:
        """Everything that the supervisor started, and what that started, and itself."""
        assert self._up is not None
        supervisor = psutil.Process(self._up.pid)
        pids = [supervisor.pid, *(p.pid for p in supervisor.children(recursive=True))]
        return [mark for pid in pids if (mark := ProcessMark.of(pid)) is not None]

    def kill(self, part: str) -> None:
        """kill -9. After the supervisor's death nothing is left, and the platform starts again."""
        process = wait_until(f"there is a {part}", lambda: self.process(part))
        family = self.family() if part == "supervisor" else []
        process.kill()
        if part == "supervisor":
            assert self._up is not None
            self._up.wait()
            wait_until("no orphan is left", lambda: not any(m.is_alive for m in family), 10.0)
            self.start()

    def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One request, once."""
        sent = {**self._authorization(), **(headers or {})}
        raw = body if isinstance(body, bytes) else None
        if body is not None and raw is None:
            raw = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, raw, sent)
            answer = connection.getresponse()
            content = answer.read()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)
        finally:
            connection.close()

    def patiently(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """A request, again after each broken connection, 429 or 5xx."""

        def ask() -> Reply | None:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            try:
                reply = self.request(method, path, body, named)
            except (OSError, http.client.HTTPException):
                return None
            return None if reply.status >= 500 or reply.status == 429 else reply

        reply: Reply = wait_until(f"{method} {path} is answered", ask)
        assert reply.status < 300, reply.body
        return reply

    def _authorization(self) -> dict[str, str]:
        try:
            return {"authorization": f"Bearer {(self.data / 'api-key').read_text().strip()}"}
        except OSError:
            return {}

    def upload(self, content: bytes) -> str:
        """A training file's id."""
        mark = "----part"
        text = (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="chats.jsonl"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = text.encode() + content + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        return str(self.patiently("POST", "/v1/files", body, content_type=kind).json["id"])

    def create_job(self, file: str, key: str, **hyperparameters: int) -> str:
        """A job's id; the same one for the same `key`."""
        body = {
            "model": BASE,
            "training_file": file,
            "seed": 11,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": hyperparameters},
            },
        }
        reply = self.patiently("POST", "/v1/fine_tuning/jobs", body, idempotency_key=key)
        return str(reply.json["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.patiently("GET", f"/v1/fine_tuning/jobs/{job_id}").json
        return found

    def wait_for_job(self, job_id: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The job when it is over."""
        over = {"succeeded", "failed", "cancelled"}

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in over else None

        found: dict[str, Any] = wait_until(f"{job_id} is over", look, patience_s)
        return found

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events, oldest first, read page by page."""
        path = f"/v1/fine_tuning/jobs/{job_id}/events?limit=100"
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.patiently("GET", path + after).json
            found += page["data"]
            if not page["has_more"]:
                return found[::-1]
            after = f"&after={found[-1]['id']}"

    def chat(self, model: str, text: str = "what says the fox?", tokens: int = 8) -> Reply:
        """A chat completion, once."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_completion_tokens": tokens, "seed": 1}
        return self.request("POST", "/v1/chat/completions", body)
