"""What the end of a trainer means, and when a crash that comes back is a failure.

Every attempt leaves its end in `attempt-N/exit.json`; an attempt without one ended with its worker
and counts for nothing. Waiting between attempts grows while no step is gained.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from afina.domain.codec import decode
from afina.domain.jobs import JobError
from afina.domain.runs import RunEvent, RunPaths
from afina.domain.sayings import say
from afina.pipeline.run_files import write_json

LEFT: Final = 75
EXIT: Final = "exit.json"
SAME_STEP_LIMIT: Final = 3
SAME_STEP_KILLED_LIMIT: Final = 8
"""A kill may come from outside, so more of them at one step are borne than crashes."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True)
class Exit:
    """How an attempt ended: exit code (negative: signal) and the last step that it reached."""

    code: int
    step: int
    has_result: bool = False
    """Whether it did what it was asked for: a run that was paused is no crash when it goes on."""

    @property
    def crashed(self) -> bool:
        return self.code != LEFT and not self.has_result


@dataclass(frozen=True)
class Verdict:
    """What the worker does next. `error` is set with `failed`."""

    kind: Literal["finished", "left", "failed", "crashed"]
    error: JobError | None = None


def judge_exit(code: int, has_result: bool, last_event: RunEvent | None) -> Verdict:
    """What an exit code means, by the contract of afina.domain.runs."""
    if code == 0 and has_result:
        return Verdict("finished")
    if code == LEFT:
        return Verdict("left")
    if code == 1 and last_event is not None and last_event.kind == "failed":
        return Verdict("failed", _error_of(last_event))
    return Verdict("crashed")


def write_exit(paths: RunPaths, attempt: int, end: Exit) -> None:
    """Keep how an attempt ended."""
    write_json(paths.attempt(attempt) / EXIT, end)


def read_exits(paths: RunPaths) -> list[Exit]:
    """The ends of all attempts that have one, in order."""
    ends = []
    for number in range(1, next_attempt(paths)):
        try:
            text = (paths.attempt(number) / EXIT).read_text()
        except OSError:
            continue
        ends.append(decode(Exit, json.loads(text), EXIT))
    return ends


def next_attempt(paths: RunPaths) -> int:
    """The number of the attempt that starts next."""
    numbers = [int(path.name.removeprefix("attempt-")) for path in paths.root.glob("attempt-*")]
    return max(numbers, default=0) + 1


def give_up(ends: Sequence[Exit], max_attempts: int) -> JobError | None:
    """The error of a job whose crashes show that another attempt would not help."""
    crashes = [end for end in ends if end.crashed]
    same = _same_step(crashes)
    if not crashes:
        return None
    last = crashes[-1]
    limit = SAME_STEP_KILLED_LIMIT if last.code == -signal.SIGKILL else SAME_STEP_LIMIT
    if same < limit and len(crashes) < max_attempts:
        return None
    said = (
        say("crashed_at", n=same, step=last.step)
        if same >= limit
        else say("crashed", n=len(crashes))
    )
    crashed = same if same >= limit else len(crashes)
    times = "once" if crashed == 1 else f"{crashed} times"
    times += f" at step {last.step}" if same >= limit else ""
    message = f"The training process ended unexpectedly {times} ({describe(last.code)})."
    killed = last.code == -signal.SIGKILL
    if killed:
        message += " The system may have killed it for want of memory: try a smaller batch_size."
    sentences = (said, say("killed")) if killed else (said,)
    kept = " Its log is kept in the run's directory."
    return JobError("server_error", message + kept, said=sentences)


def pause_before_next(ends: Sequence[Exit]) -> float:
    """Seconds to wait before the next attempt."""
    crashes = [end for end in ends if end.crashed]
    if not crashes:
        return 0.0
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (_same_step(crashes) - 1)))


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _same_step(crashes: Sequence[Exit]) -> int:
    """How many of the last crashes in a row gained no step on each other."""
    count = 0
    for end in reversed(crashes):
        if end.step != crashes[-1].step:
            break
        count += 1
    return count


def _error_of(event: RunEvent) -> JobError:
    code = str(event.data.get("code", "server_error"))
    message = str(event.data.get("message", "The job failed due to an internal error"))
    remedy = event.data.get("remedy")
    return JobError(code, f"{message} {remedy}" if remedy else message)
