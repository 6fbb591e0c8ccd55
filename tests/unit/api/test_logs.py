"""Logs: no secret gets through, and an exception's message, which may hold a text, is left out."""

from __future__ import annotations

import io
import threading

import pytest

from afina.api import log_writer
from afina.api.log_writer import LogWriter
from afina.api.logs import frames, redact, without_secrets


@pytest.mark.parametrize(
    "text", ["sk-afina-abcdefgh1234", "Bearer eyJhbGciOi.x", "hf_abcdefghijk", "whsec_MfKQ9r8GKY"]
)
def test_what_looks_like_a_secret_is_cut_out(text: str) -> None:
    assert text not in without_secrets(f"a {text} b")
    assert redact(None, "", {"path": f"/v1/models/{text}"})["path"] != f"/v1/models/{text}"


def test_other_texts_stay_as_they_are() -> None:
    for text in ("/v1/files/file-abc", "ft:base:local:risk-model:abcdefgh", "task-list", "basket"):
        assert without_secrets(text) == text


def test_frames_tell_places_and_no_values() -> None:
    try:
        raise ValueError("a user's text")
    except ValueError as error:
        told = frames(error.__traceback__)
    assert "test_logs.py" in told[-1]
    assert "user" not in " ".join(told)


class Disk(io.StringIO):
    """A file whose writes wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.writing = threading.Event()

    def write(self, text: str) -> int:
        self.writing.set()
        assert self.may.wait(30)
        return super().write(text)


def test_a_line_does_not_wait_for_the_disk_and_lines_keep_their_order() -> None:
    disk = Disk()
    writer = LogWriter(disk, str)
    for number in range(100):
        writer.write(f"{number}\n")  # returns, though nothing can be written
    disk.may.set()
    writer.close()
    assert disk.getvalue().split() == [str(number) for number in range(100)]


def test_lines_that_come_together_are_written_together() -> None:
    written: list[str] = []

    class Counting(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    writer = LogWriter(Counting(), str)
    for number in range(50):
        writer.write(f"{number}\n")
    writer.close()
    assert "".join(written).split() == [str(number) for number in range(50)]
    assert len(written) < 10


def test_lines_beyond_what_may_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MOST_WAITING", 3)
    disk = Disk()
    writer = LogWriter(disk, lambda count: f"{count} left out")
    writer.write("first\n")
    assert disk.writing.wait(30)
    for number in range(5):
        writer.write(f"{number}\n")
    disk.may.set()
    writer.close()
    assert disk.getvalue() == "first\n0\n1\n2\n2 left out\n"


def test_a_log_that_nobody_reads_any_more_stops_nothing() -> None:
    disk = io.StringIO()
    writer = LogWriter(disk, str)
    disk.close()
    writer.write("unheard\n")
    writer.close()
    writer.write("unheard\n")
