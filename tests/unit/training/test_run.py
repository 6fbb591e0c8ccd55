"""A run ends with the same bytes however often it was stopped, and tells each event once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny_run import adapter_bytes_of, make_run, read_events, write_spec

from afina.domain.clock import ManualClock
from afina.domain.runs import RunPaths, RunResult
from afina.errors import TrainingFailed
from afina.training import __main__ as process
from afina.training.checkpoints import newest_checkpoint
from afina.training.given import read_spec
from afina.training.run import Hooks, run_directory
from afina.training.signals import EXIT_RESUMABLE, Stop


class Killed(BaseException):
    """Stands for the end of the process at a point: nothing of ours runs after it."""


@pytest.fixture(autouse=True)
def unmoved_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's `main` is called within this process, whose signals are not to change."""
    monkeypatch.setattr(Stop, "listen", lambda _self: None)
    monkeypatch.setattr(process, "die_with_parent", lambda _descriptor: None)


def dying_at(point: str, step: int) -> Hooks:
    def at(passed: str, number: int) -> None:
        if (passed, number) == (point, step):
            raise Killed

    return Hooks(at)


def finished(root: Path, **changes: object) -> RunResult:
    result = run_directory(root, **changes)  # type: ignore[arg-type]
    assert result is not None
    return result


def told(root: Path) -> list[tuple[object, ...]]:
    """What a reader of the events counts: everything but the time."""
    return [(e.sequence, e.kind, json.dumps(e.data, sort_keys=True)) for e in read_events(root)]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "unharmed"
    make_run(root)
    finished(root)
    return root


def twin(unharmed: Path, tmp_path: Path, **changes: object) -> Path:
    """Another run directory with the same spec."""
    spec = read_spec(RunPaths(unharmed))
    root = tmp_path / "twin"
    write_spec(root, replace(spec, **changes))  # type: ignore[arg-type]
    return root


def assert_same_end(first: Path, second: Path) -> None:
    results = [json.loads(RunPaths(root).result.read_bytes()) for root in (first, second)]
    for result in results:
        for measured in ("train_seconds", "tokens_per_second", "peak_rss_bytes"):
            del result[measured]
    assert results[0] == results[1]
    for checkpoint in results[0]["checkpoints"]:
        assert adapter_bytes_of(first, checkpoint) == adapter_bytes_of(second, checkpoint)
    assert told(first) == told(second)


def test_the_same_spec_gives_the_same_bytes_twice(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path)
    finished(root)
    assert_same_end(unharmed, root)


@pytest.mark.parametrize(
    ("point", "step"),
    [
        ("step", 1),
        ("step", 2),
        ("saving", 3),
        ("saved", 3),
        ("step", 5),
        ("saved", 6),
        ("finishing", 6),
        ("result", 6),
    ],
)
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(
    unharmed: Path, tmp_path: Path, point: str, step: int
) -> None:
    root = twin(unharmed, tmp_path)
    with pytest.raises(Killed):
        run_directory(root, hooks=dying_at(point, step))
    finished(root)
    assert_same_end(unharmed, root)


def test_a_reader_who_saw_events_before_the_kill_sees_the_same_numbers_again(
    unharmed: Path, tmp_path: Path
) -> None:
    root = twin(unharmed, tmp_path)
    with pytest.raises(Killed):
        run_directory(root, hooks=dying_at("step", 5))
    before = told(root)
    finished(root)
    assert told(root)[: len(before)] == before


def test_resume_checkpoints_by_time_change_nothing(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path, resume_interval_s=1e-9)
    with pytest.raises(Killed):
        run_directory(root, hooks=dying_at("step", 6))
    found = newest_checkpoint(RunPaths(root))
    assert found is not None
    assert (found.record.step, found.record.kind) == (5, "resume")
    finished(root)
    assert_same_end(unharmed, root)
    left = sorted(path.name for path in RunPaths(root).checkpoints.iterdir())
    assert left == ["step-3", "step-6"]


def test_a_damaged_checkpoint_is_passed_over(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path, resume_interval_s=1e-9)
    with pytest.raises(Killed):
        run_directory(root, hooks=dying_at("step", 6))
    masters = RunPaths(root).checkpoints / "step-5" / "masters.safetensors"
    raw = bytearray(masters.read_bytes())
    raw[-1] ^= 1
    masters.write_bytes(raw)
    found = newest_checkpoint(RunPaths(root))
    assert found is not None
    assert found.record.step == 3
    finished(root)
    assert_same_end(unharmed, root)


def test_sigterm_leaves_a_checkpoint_and_says_nothing(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path)
    stop = Stop()

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 5):
            stop.ask()

    assert run_directory(root, stop, hooks=Hooks(at)) is None
    found = newest_checkpoint(RunPaths(root))
    assert found is not None
    assert found.record.step == 4
    finished(root)
    assert_same_end(unharmed, root)


def test_a_wish_to_cancel_ends_with_a_usable_checkpoint(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path)

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 5):
            RunPaths(root).control.write_text('{"wish": "cancel"}')

    result = finished(root, hooks=Hooks(at))
    assert (result.outcome, result.steps) == ("cancelled", 5)
    assert [one.step for one in result.checkpoints] == [3]
    assert read_events(root)[-1].kind == "stopped"
    assert finished(root) == result


def test_a_paused_run_goes_on_to_the_same_end(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path)
    control = RunPaths(root).control

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 2):
            control.write_text('{"wish": "pause"}')

    assert finished(root, hooks=Hooks(at)).outcome == "paused"
    assert finished(root).outcome == "paused"
    control.write_text('{"wish": null}')
    assert finished(root).outcome == "succeeded"
    assert_same_end(unharmed, root)


def test_a_run_stops_at_the_end_of_the_last_epoch_that_its_budget_has(
    unharmed: Path, tmp_path: Path
) -> None:
    root = twin(unharmed, tmp_path)
    control = RunPaths(root).control

    def at(point: str, step: int) -> None:
        if (point, step) == ("step", 2):
            control.write_text('{"wish": null, "epochs": 0}')

    result = finished(root, hooks=Hooks(at))
    assert (result.outcome, result.steps) == ("spent", 3)
    assert [one.step for one in result.checkpoints] == [3]
    assert result.parity
    assert read_events(root)[-1].kind == "stopped"
    assert finished(root) == result


def test_a_budget_that_has_every_epoch_changes_nothing(unharmed: Path, tmp_path: Path) -> None:
    root = twin(unharmed, tmp_path)
    RunPaths(root).control.write_text('{"wish": null, "epochs": 2}')
    assert finished(root).outcome == "succeeded"
    assert_same_end(unharmed, root)


def test_events_carry_the_metrics_of_the_wire(unharmed: Path) -> None:
    steps = [event.data for event in read_events(unharmed) if event.kind == "step"]
    assert [data["step"] for data in steps] == [1, 2, 3, 4, 5, 6]
    assert all("train_loss" in data and "train_mean_token_accuracy" in data for data in steps)
    assert ["valid_loss" in data for data in steps] == [True, True, True, True, False, True]
    assert ["full_valid_loss" in data for data in steps] == [False, False, True] * 2
    assert steps[-1]["train_loss"] < steps[0]["train_loss"]
    kinds = [event.kind for event in read_events(unharmed)]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["checkpoint", "finished"]


def test_tokens_are_counted_as_they_are_billed(unharmed: Path) -> None:
    spec = read_spec(RunPaths(unharmed))
    result = finished(unharmed)
    assert result.trained_tokens == spec.training.tokens * spec.epochs
    assert result.learned_tokens == spec.training.learned_tokens * spec.epochs


def test_only_the_last_checkpoints_are_kept(unharmed: Path, tmp_path: Path) -> None:
    spec = read_spec(RunPaths(unharmed))
    optimizer = replace(spec.optimizer, total_steps=12)
    root = twin(unharmed, tmp_path, epochs=4, checkpoints_kept=2, optimizer=optimizer)
    result = finished(root)
    assert [one.step for one in result.checkpoints] == [9, 12]
    left = sorted(path.name for path in RunPaths(root).checkpoints.iterdir())
    assert left == ["step-12", "step-9"]


def test_a_loss_that_is_no_number_fails_by_its_step_and_keeps_the_checkpoint(
    unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afina.training.network import TrainedNetwork

    root = twin(unharmed, tmp_path)
    real = TrainedNetwork.loss
    calls = {"step": 0}

    def loss(self: TrainedNetwork, tensors: object, learned: int) -> object:
        value, right, losses = real(self, tensors, learned)  # type: ignore[arg-type]
        return (value * float("nan") if calls["step"] == 5 else value), right, losses

    monkeypatch.setattr(TrainedNetwork, "loss", loss)
    hooks = Hooks(lambda point, step: calls.update(step=step) if point == "step" else None)
    with pytest.raises(TrainingFailed, match="step 5") as caught:
        run_directory(root, hooks=hooks)
    assert caught.value.code == "not_finite"
    found = newest_checkpoint(RunPaths(root))
    assert found is not None
    assert found.record.step == 3


def test_the_process_tells_a_failure_as_its_last_event(tmp_path: Path) -> None:
    root = tmp_path / "run"
    spec = make_run(root)
    RunPaths(root).spec.write_text(
        RunPaths(root).spec.read_text().replace(spec.base.path, str(tmp_path / "nowhere"))
    )
    assert process.main([str(root)]) == 1
    last = read_events(root)[-1]
    assert last.kind == "failed"
    assert last.data["code"]
    assert "The base model nowhere is no longer on this machine." in last.data["message"]


def test_a_base_that_was_changed_since_the_job_was_created_is_not_tuned(
    unharmed: Path, tmp_path: Path
) -> None:
    spec = read_spec(RunPaths(unharmed))
    root = twin(unharmed, tmp_path, base=replace(spec.base, sha256="0" * 64))
    with pytest.raises(TrainingFailed, match="has changed"):
        run_directory(root)


def test_out_of_memory_is_told_with_a_remedy(
    unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afina.training.steps import Stepper

    root = twin(unharmed, tmp_path)

    def take(*_: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(Stepper, "take", take)
    assert process.main([str(root)]) == 1
    last = read_events(root)[-1]
    assert (last.kind, last.data["code"]) == ("failed", "out_of_memory")
    assert last.data["remedy"]


def test_the_process_leaves_with_75_after_sigterm(
    unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = twin(unharmed, tmp_path)
    monkeypatch.setattr(Stop, "listen", Stop.ask)
    assert process.main([str(root)]) == EXIT_RESUMABLE
    assert not RunPaths(root).result.exists()


def test_messages_of_weight_0_are_not_learned(tmp_path: Path) -> None:
    from tests.tiny import make_tiny_model
    from tests.tiny_run import make_shards

    make_tiny_model(tmp_path / "model")
    answer = {"role": "assistant", "content": "the quick brown fox"}
    question = {"role": "user", "content": "hello"}
    silent = [{"messages": [question, {**answer, "weight": 0}, question, answer]}]
    loud = [{"messages": [question, answer, question, answer]}]
    specs = [
        make_shards(tmp_path / "model", rows, tmp_path / name)
        for rows, name in ((silent, "silent"), (loud, "loud"))
    ]
    assert specs[0].tokens == specs[1].tokens
    assert 2 * specs[0].learned_tokens == specs[1].learned_tokens


def test_time_in_events_comes_from_the_clock(tmp_path: Path) -> None:
    root = tmp_path / "run"
    make_run(root, rows=4, epochs=1)
    finished(root, clock=ManualClock(1_800_000_000.0))
    assert {event.time for event in read_events(root)} == {1_800_000_000.0}


def test_nothing_of_the_rows_text_is_told(unharmed: Path) -> None:
    text = RunPaths(unharmed).events.read_text()
    assert not [word for word in ("quick", "jumps", "manner") if word in text]
