"""One round of telling Weights & Biases, in a process of its own: their client, and nothing else.

    python -m afina.pipeline.wandb_run < NEWS

NEWS is a JSON object (`WandbNews`); the answer is one JSON object on standard output. The key is
in the environment, where the client looks for it. Own process, because the client keeps threads,
a helper process and signal handlers, and because one that hangs can be ended.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from afina.domain.codec import decode
from afina.domain.integrations import RunNews, RunState

EXIT_CODES: Final[dict[RunState, int]] = {"running": 0, "finished": 0, "failed": 1, "killed": 255}


@dataclass(frozen=True)
class WandbNews:
    """What the process is given."""

    project: str
    entity: str | None
    tags: tuple[str, ...]
    news: RunNews
    timeout_s: float


def tell(given: WandbNews) -> dict[str, Any]:
    """Takes the run up under the job's id, logs what is new, and leaves it in its state."""
    import wandb

    news = given.news
    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        init_timeout=given.timeout_s,
        # While the job goes on, the end of a round is not the end of the run.
        x_update_finish_state=news.state != "running",
    )
    run = wandb.init(
        project=given.project,
        entity=given.entity,
        id=news.job_id,
        name=news.name,
        tags=list(given.tags),
        config=dict(news.config),
        resume="allow",
        settings=settings,
    )
    for row in news.metrics:
        # Steps that are known already are left out by the client: a round may come again.
        run.log({**row.values, "_timestamp": row.time}, step=row.step)
    for name, value in news.outcome.items():
        run.summary[name] = value
    where = {"url": run.url, "folder": Path(run.settings.sync_dir).name}
    run.finish(exit_code=EXIT_CODES[news.state])
    return where


def main() -> int:
    """The program."""
    os.nice(19)
    given = decode(WandbNews, json.load(sys.stdin))
    try:
        where = tell(given)
    except Exception as error:  # noqa: BLE001 - told to the parent as one line
        reason = (str(error).splitlines() or [""])[0]
        print(json.dumps({"error": f"{type(error).__name__}: {reason}"[:300]}))  # noqa: T201
        return 1
    print(json.dumps(where))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
