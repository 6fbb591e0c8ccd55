"""A helper of a run: `python -m afina.training.helper RUN MEETING RANK SIZE`.

Computes its share of every step until the leader lets it go, and writes nothing. It ends with its
leader, whichever way that ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from afina.domain.orphans import die_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Runs the helper and returns its exit code."""
    parser = argparse.ArgumentParser(prog="afina.training.helper", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("meeting", type=Path, help="the file through which members find each other")
    for name in ("rank", "size"):
        parser.add_argument(name, type=int)
    given = parser.parse_args(arguments)
    # the leader answers for both
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(sys.stdin.fileno())
    from afina.training.team import join_team

    help_run(given.run, join_team(given.meeting, given.rank, given.size))
    return 0


def help_run(root: Path, team: object) -> None:
    """Carries out the leader's orders on the run in `root` until it lets go."""
    import torch

    from afina.data.shards import Shards
    from afina.domain.runs import RunPaths
    from afina.training.bins import Rows
    from afina.training.ending import FROZEN
    from afina.training.given import read_spec
    from afina.training.methods import build_network, build_stepper
    from afina.training.optimizer import AdamW
    from afina.training.preferences import REFERENCE, kept_reference
    from afina.training.steps import Stepper
    from afina.training.team import Joined

    assert isinstance(team, Joined)
    spec = read_spec(RunPaths(root))
    torch.set_num_threads(spec.threads)
    network = build_network(spec)
    network.join(team)
    rows: Rows = Shards.open(Path(spec.training.path))
    if spec.sharded:
        from afina.training.sharded import ShardedNetwork, help_sharded

        assert isinstance(network, ShardedNetwork)
        help_sharded(spec, network, rows)
        return
    stepper: Stepper | None = None

    def reference(_rows: Rows, name: str) -> torch.Tensor:
        kept = kept_reference(root / f"{name}.{REFERENCE}")
        if kept is None:
            raise FileNotFoundError(f"{name}.{REFERENCE}")
        return kept[name]

    while (order := team.listen(network.adapter.masters)) is not None:
        if stepper is None:
            if order.frozen:
                rows = network.prepare(rows, root / FROZEN, lambda: False)
            optimizer = AdamW(spec.optimizer, network.adapter.masters)
            stepper = build_stepper(spec, network, optimizer, (rows, None), reference)
        network.adapter.refresh()
        stepper.help(order)


if __name__ == "__main__":
    code = main()
    os._exit(code)
