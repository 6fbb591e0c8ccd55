"""Runs that several processes share, for the tests of each way in which they do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.tiny_run import read_events, write_spec

from afina.domain.codec import encode
from afina.domain.runs import RunPaths, RunSpec
from afina.training import team as teams
from afina.training.run import Hooks


class Killed(BaseException):
    """Stands for the end of the process at a point."""


def curve(root: Path, name: str = "train_loss") -> list[float]:
    """What a run's step events say of one measure."""
    events = [event.data for event in read_events(root) if event.kind == "step"]
    return [data[name] for data in events if name in data]


def warnings(root: Path) -> list[Mapping[str, Any]]:
    """What a run warned of."""
    return [event.data for event in read_events(root) if event.kind == "warning"]


def twin(spec: RunSpec, root: Path, **changes: Any) -> Path:
    """The same run in another directory."""
    write_spec(root, replace(spec, **changes))
    return root


def at_point(point: str, step: int, act: Callable[[], None]) -> Hooks:
    """Hooks that act once the run passes that point."""

    def at(passed: str, number: int) -> None:
        if (passed, number) == (point, step):
            act()

    return Hooks(at)


def killed_at(point: str, step: int) -> Hooks:
    """Hooks that end the process there."""

    def act() -> None:
        raise Killed

    return at_point(point, step, act)


def team_of_two(root: Path) -> tuple[teams.Joined, Callable[[], None]]:
    """A team for the run, and what kills its helper."""
    team = teams.start_team(root, 2)
    assert isinstance(team, teams.Joined)

    def kill() -> None:
        for helper in team._helpers:
            helper.kill()
            helper.wait()

    return team, kill


def by_torchrun(spec: RunSpec, root: Path) -> Path:
    """The run as two processes that the real `torchrun` starts; its directory when it is over."""
    root.mkdir()
    RunPaths(root).spec.write_text(json.dumps(encode(spec)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", "-m", "afina.training", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:4000]
    return root
