"""A checkpoint is written while steps go on: what it holds, what is told and when stay the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tests.tiny_run import make_run, read_events

from afina.domain.clock import ManualClock
from afina.domain.runs import RunPaths
from afina.training import run as runs
from afina.training.background import Writing, has_room
from afina.training.checkpoints import write_checkpoint
from afina.training.events import EventLog
from afina.training.run import Hooks, run_directory
from afina.training.tensor_files import flat_file


@pytest.mark.parametrize("count", [1, 5, 64])
def test_a_file_in_pieces_has_the_bytes_of_the_library(count: int) -> None:
    first, second = torch.randn(2, count)
    for tensors in ({"masters": first}, {"first": first, "second": second.clone()}):
        assert b"".join(flat_file(tensors)) == save(tensors)


def test_what_is_told_behind_a_checkpoint_waits_in_its_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", clock=ManualClock())
    log.append("started")
    written = log.length
    log.hold()
    log.append("checkpoint", {"step": 1})
    log.append("step", {"step": 2})
    assert log.length == written
    log.release()
    log.append("finished")
    log.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    kinds = [line.split('"kind":"')[1].split('"')[0] for line in lines]
    assert kinds == ["started", "checkpoint", "step", "finished"]
    assert [f'"sequence":{n}' in line for n, line in enumerate(lines, 1)] == [True] * 4


def test_what_goes_wrong_in_writing_is_raised_to_the_run() -> None:
    def fails() -> Path:
        raise OSError("no space left")

    for beside in (True, False):
        with pytest.raises(OSError, match="no space"):
            Writing(fails, beside=beside).wait()


def test_a_state_that_memory_does_not_hold_twice_is_written_at_once() -> None:
    assert has_room(1)
    assert not has_room(1 << 50)


def test_steps_go_on_while_a_checkpoint_is_written_and_it_holds_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing of step 3 is held until step 4 is over; its bytes are those of a run that wrote
    at once, and so are the events."""
    make_run(tmp_path / "at-once")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "has_room", lambda _bytes: False)
        assert run_directory(tmp_path / "at-once") is not None
    make_run(tmp_path / "beside")
    over, folders = threading.Event(), RunPaths(tmp_path / "beside").checkpoints
    seen: list[bool] = []

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 5):
            seen.append((folders / "step-3").exists())
            over.set()

    def held(*given: object) -> Path:
        assert over.wait(60)
        return write_checkpoint(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "write_checkpoint", held)
    assert run_directory(tmp_path / "beside", hooks=Hooks(at)) is not None
    assert seen == [False]
    for name in ("masters.safetensors", "optimizer.safetensors", "adapter_model.safetensors"):
        ours, theirs = (
            tmp_path / run / "checkpoints/step-3" / name for run in ("beside", "at-once")
        )
        assert ours.read_bytes() == theirs.read_bytes()
    told = [
        [(event.sequence, event.kind, event.data.get("step")) for event in read_events(root)]
        for root in (tmp_path / "beside", tmp_path / "at-once")
    ]
    assert told[0] == told[1]
