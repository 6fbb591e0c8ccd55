"""An engine that is alive and computes nothing: streams end with an error that clients raise on,
another engine takes its place, and log, metrics and doctor say so."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.crash.conftest import data_directory
from tests.live import BASE, LivePlatform, wait_until
from tests.tiny import make_tiny_model

from afina.cli import diagnoses
from afina.errors import AfinaError, EngineFailed
from afina.serving.client import BlockingEngineClient
from afina.serving.protocol import Score
from afina.settings import Settings, child_environment

SOON = {"AFINA_ENGINE__HUNG_AFTER_S": "3"}
pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    folder = tmp_path_factory.mktemp("hung")
    make_tiny_model(folder / "model", base_id=BASE, max_position_embeddings=20_000)
    platform = LivePlatform(data_directory(folder, folder / "model"), SOON)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


def client_of(live: LivePlatform) -> openai.OpenAI:
    key = (live.data / "api-key").read_text().strip()
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{live.port}/v1", api_key=key, max_retries=0, timeout=60
    )


def restarts(live: LivePlatform) -> str:
    return live.patiently("GET", "/metrics").body.decode()


def test_a_stopped_engine_fails_its_streams_and_another_answers(live: LivePlatform) -> None:
    live.patiently("POST", "/v1/chat/completions", _chat(4))
    stopped = live.process("engine")
    assert stopped is not None
    stream: Any = client_of(live).chat.completions.create(**_chat(15_000), stream=True)
    next(iter(stream))
    stopped.send_signal(signal.SIGSTOP)
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass
    wait_until("the hung one is gone", lambda: not stopped.is_running())
    assert live.patiently("POST", "/v1/chat/completions", _chat(4)).json["usage"]
    assert 'afina_engine_restarts_total{reason="hung"} 1.0' in restarts(live)
    said = (live.data / "up.txt").read_text()
    assert "The engine was hung and has been ended (no sign of life" in said
    found = diagnoses.engine(Settings.load(data=live.data))
    assert [one.verdict for one in found] == ["ok", "note"]
    assert "1 of them because it was hung" in found[1].text


def test_the_doctor_calls_a_stopped_engine_wrong(live: LivePlatform) -> None:
    live.patiently("POST", "/v1/chat/completions", _chat(4))
    stopped = live.process("engine")
    assert stopped is not None
    stopped.send_signal(signal.SIGSTOP)
    found = diagnoses.engine(Settings.load(data=live.data), timeout_s=0.5)[0]
    assert (found.verdict, "said nothing" in found.text) == ("wrong", True)
    stopped.send_signal(signal.SIGCONT)
    assert live.patiently("POST", "/v1/chat/completions", _chat(4)).json["usage"]


def test_an_engine_that_works_hard_is_not_hung(live: LivePlatform) -> None:
    before = live.process("engine")
    assert before is not None
    threads = [
        threading.Thread(target=live.patiently, args=("POST", "/v1/chat/completions", _chat(600)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = live.process("engine")
    assert after is not None
    assert after.pid == before.pid


def test_a_hung_step_ends_the_engine_by_itself(tmp_path: Path, tiny_folder: Path) -> None:
    data = data_directory(tmp_path, tiny_folder)
    code = f"""
import threading
from afina.serving.runner import Runner
from afina.serving.__main__ import serve
from afina.settings import Settings
Runner.run = lambda self, plan: threading.Event().wait(300)
raise SystemExit(serve(Settings.load(data={str(data)!r}), {BASE!r}))
"""
    engine = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**_environment(), "AFINA_ENGINE__HUNG_AFTER_S": "2"},
        stdout=subprocess.PIPE,
    )
    try:
        client = BlockingEngineClient(Settings.load(data=data).engine_socket)

        def failed() -> AfinaError | None:
            try:
                client.score(Score(BASE, [3, 4], [5]))
            except EngineFailed as error:
                return error
            except AfinaError:
                return None
            return None

        assert "stood still" in wait_until("it says so", failed).message
        assert engine.wait(20) == 75
        out, _ = engine.communicate()
        assert b"engine.hung" in out
    finally:
        engine.kill()
        engine.wait()


def _environment() -> dict[str, str]:
    return child_environment(AFINA_ENGINE__THREADS="1", OMP_NUM_THREADS="1")


def _chat(tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "what says the fox?"}]
    return {
        "model": BASE,
        "messages": messages,
        "max_completion_tokens": tokens,
        "temperature": 0,
    }
