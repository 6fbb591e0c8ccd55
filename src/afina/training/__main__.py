"""The trainer: `python -m afina.training runs/<job> [--parent-fd N]`, or the same module through
`torchrun` for several processes on several machines.

With `--wait-fd` it loads what it needs, and the base of `--base`, and looks at its run when a byte
comes; when the pipe ends without one, it leaves.

Ends with 0 when result.json stands, 75 when it left after SIGTERM with a checkpoint, and 1 when
the run failed, with a `failed` event as the last line of events.jsonl.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from afina.domain.collector import load_in_peace
from afina.domain.orphans import die_with_parent
from afina.training.heap import WarmHeap, heap_for
from afina.training.signals import EXIT_RESUMABLE, Stop


def main(arguments: list[str] | None = None) -> int:
    """Runs the trainer and returns its exit code."""
    parser = argparse.ArgumentParser(prog="afina.training", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--parent-fd", type=int, help="a pipe whose end means: leave at once")
    parser.add_argument("--wait-fd", type=int, help="a pipe to wait at before the run is read")
    parser.add_argument("--base", type=Path, help="the base to load meanwhile")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    given = parser.parse_args(arguments)
    stop = Stop()
    stop.listen()
    die_with_parent(given.parent_fd)
    load_in_peace()
    heap = WarmHeap(heap_for(given.base) if given.wait_fd is not None and given.base else 0)
    # after the signals: loading torch takes a second, and SIGTERM may come within it
    from torch import distributed

    from afina.model.base import ReadyBase
    from afina.training.events import tell_failure
    from afina.training.failures import describe_failure
    from afina.training.helper import help_run
    from afina.training.run import run_directory
    from afina.training.team import start_team

    ready = ReadyBase()
    if given.wait_fd is not None:
        if given.base is not None:
            ready.fill(given.base, given.precision)
        if not os.read(given.wait_fd, 1):
            return 0
    heap.release()
    team = None
    if distributed.is_torchelastic_launched():
        team = start_team(given.run, 1)
        if team.rank:
            help_run(given.run, team)
            return 0
    try:
        result = run_directory(given.run, stop, load=ready.load, team=team)
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker must be told
        traceback.print_exc()
        failure = describe_failure(error)
        tell_failure(given.run, failure)
        return 1
    return 0 if result is not None else EXIT_RESUMABLE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # everything is on disk; handing gigabytes back piece by piece would take another second
    os._exit(code)
