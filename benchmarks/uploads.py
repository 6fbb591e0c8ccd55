"""How fast, and in how much memory, a large file comes in through Uploads.

    python -m benchmarks.uploads [--megabytes 1024]

An api process of its own takes parts of 64 MB, two at a time, and makes the file of them; every
line of it is checked as JSON on the way. Its memory is looked at ten times a second; the parts are
made and hashed by this process while nothing is sent, and that time is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

PART = 64 * 1024 * 1024
ROW = json.dumps(
    {
        "messages": [
            {"role": "user", "content": "what says the fox in the long story? " * 8},
            {"role": "assistant", "content": "the fox jumps over the lazy dog. " * 8},
        ]
    }
).encode()


class Memory:
    """What a process holds, ten times a second, until the `with` block ends."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.idle = self._process.memory_info().rss
        self.seen: list[tuple[float, int]] = []

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.1):
            now = time.monotonic() - begun
            self.seen.append((now, self._process.memory_info().rss))

    def tenths(self) -> list[int]:
        """The most of each tenth of the time, in megabytes."""
        end = self.seen[-1][0]
        groups: list[list[int]] = [[] for _ in range(10)]
        for moment, held in self.seen:
            groups[min(9, int(moment / end * 10))].append(held)
        return [round(max(group) / 1e6) for group in groups if group]


class Server:
    """An `afina api` in a folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 18_383
        command = [sys.executable, "-m", "afina.cli", "api", "--data", str(data)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stderr=subprocess.DEVNULL
        )
        self.key = ""
        deadline = time.monotonic() + 60
        while not self.key:
            assert time.monotonic() < deadline, "the api did not start"
            time.sleep(0.1)
            try:
                self.ask("GET", "/health")
                self.key = (data / "api-key").read_text().strip()
            except OSError:
                continue

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        headers = {"authorization": f"Bearer {self.key}", "content-type": kind}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        if method == "POST":
            assert answer.status == 200, found
        return found


def content(number: int, rows: int) -> bytes:
    """A part: whole rows, each of its own."""
    end = f'"n": "{number:08d}'.encode()
    return b"".join(ROW[:-1] + b", " + end + b'%08d"}\n' % row for row in range(rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1024)
    asked = parser.parse_args()
    rows = PART // (len(ROW) + 40)
    count = max(1, asked.megabytes * 1024 * 1024 // PART)
    size = len(content(0, rows))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = Server(Path(folder))
        memory = stack.enter_context(Memory(server.process.pid))
        new = {
            "bytes": size * count,
            "filename": "a.jsonl",
            "mime_type": "text/jsonl",
            "purpose": "fine-tune",
        }
        upload = server.ask("POST", "/v1/uploads", json.dumps(new).encode())["id"]
        digest = hashlib.md5()
        spent = 0.0

        def send(body: bytes) -> str:
            form = (
                b'--cut\r\nContent-Disposition: form-data; name="data"; filename="upload"\r\n\r\n'
                + body
                + b"\r\n--cut--\r\n"
            )
            path = f"/v1/uploads/{upload}/parts"
            return str(server.ask("POST", path, form, "multipart/form-data; boundary=cut")["id"])

        ids: list[str] = []
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, count, 2):
                bodies = [content(n, rows) for n in range(start, min(start + 2, count))]
                for body in bodies:
                    digest.update(body)
                started = time.monotonic()
                ids += pool.map(send, bodies)
                spent += time.monotonic() - started
        started = time.monotonic()
        done = {"part_ids": ids, "md5": digest.hexdigest()}
        file = server.ask("POST", f"/v1/uploads/{upload}/complete", json.dumps(done).encode())
        completed = time.monotonic() - started
        total = size * count / 1e6
        print(f"parts      {total / spent:8.0f} MB/s   ({total:.0f} MB in {spent:.1f} s)")
        print(f"complete   {total / completed:8.0f} MB/s   ({completed:.1f} s)")
        print(f"all        {total / (spent + completed):8.0f} MB/s")
        most = max(held for _, held in memory.seen)
        print(f"memory     {most / 1e6:8.0f} MB at most, {memory.idle / 1e6:.0f} MB when idle")
        print(
            f"           {' '.join(map(str, memory.tenths()))} MB, most of each tenth of the time"
        )
        assert file["file"]["bytes"] == size * count
        stack.close()
        server.process.terminate()
        server.process.wait(30)
        assert not list((Path(folder) / "blobs" / "staging").iterdir())


if __name__ == "__main__":
    main()
