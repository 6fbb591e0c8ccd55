"""The platform's events in the words of the wire API, and those made from a run's own.

A step's event is numbered by its step, not by its place in events.jsonl: whatever attempt writes
it again, it is the same event and is stored once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from afina.domain.clock import Clock
from afina.domain.codec import decode
from afina.domain.events import JobEvent, Level, step_message
from afina.domain.ids import EVENT, Ids
from afina.domain.jobs import Job
from afina.domain.runs import RunEvent
from afina.domain.sayings import Said, text_of

_METRICS: Final = (
    "step",
    "total_steps",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
    *(
        f"{when}_{name}"
        for when in ("train", "valid", "full_valid")
        for name in ("reward_accuracy", "reward_margin", "chosen_reward", "rejected_reward")
    ),
)
_COLUMNS: Final = (
    ("train_loss", ("train_loss",)),
    ("train_accuracy", ("train_mean_token_accuracy",)),
    ("valid_loss", ("full_valid_loss", "valid_loss")),
    ("valid_mean_token_accuracy", ("full_valid_mean_token_accuracy", "valid_mean_token_accuracy")),
)
_PAIR_COLUMNS: Final = (
    ("train_loss", ("train_loss",)),
    ("train_reward_accuracy", ("train_reward_accuracy",)),
    ("train_reward_margin", ("train_reward_margin",)),
    ("valid_loss", ("full_valid_loss", "valid_loss")),
    ("valid_reward_accuracy", ("full_valid_reward_accuracy", "valid_reward_accuracy")),
    ("valid_reward_margin", ("full_valid_reward_margin", "valid_reward_margin")),
)
_WARNINGS_FROM: Final = 1_000_000_000
"""Above every step: warnings are numbered by what they say, so each is said once a job."""


class EventWriter:
    """Makes events of one job."""

    def __init__(self, job: Job, ids: Ids, clock: Clock) -> None:
        self._job = job
        self._ids = ids
        self._clock = clock

    def message(self, said: Said, level: Level = "info") -> JobEvent:
        """A plain message, now; it belongs into the transaction of what it tells of."""
        made = self._event(int(self._clock.now()), level, said.text)
        return replace(made, said=(said,))

    def warned(self, said: Sequence[Said], data: Mapping[str, Any]) -> JobEvent:
        """Several sentences as one warning, with their numbers for programs."""
        made = self._event(int(self._clock.now()), "warn", text_of(said))
        return replace(made, said=tuple(said), data=data)

    def from_run(self, events: Iterable[RunEvent]) -> list[JobEvent]:
        """Metrics and warnings of a run; what else it says is for the worker alone."""
        made = []
        for event in events:
            if event.kind == "step":
                made.append(self._step(event))
            elif event.kind == "warning":
                made.append(self._warning(event))
        return made

    def _step(self, event: RunEvent) -> JobEvent:
        data = {name: event.data[name] for name in _METRICS if event.data.get(name) is not None}
        text = step_message(
            int(data["step"]),
            int(data["total_steps"]),
            float(data["train_loss"]),
            data.get("valid_loss"),
            data.get("full_valid_loss"),
        )
        return self._event(int(event.time), "info", text, data, sequence=int(data["step"]))

    def _warning(self, event: RunEvent) -> JobEvent:
        text = str(event.data.get("message", event.data.get("code", "")))
        key = f"{event.data.get('code')}:{text}".encode()
        number = _WARNINGS_FROM + zlib.crc32(key) % 10**9
        said = tuple(decode(Said, one, "said") for one in event.data.get("said", ()))
        return replace(self._event(int(event.time), "warn", text, sequence=number), said=said)

    def _event(
        self,
        created_at: int,
        level: Level,
        text: str,
        metrics: dict[str, Any] | None = None,
        sequence: int = 0,
    ) -> JobEvent:
        from_run = metrics is not None or sequence >= _WARNINGS_FROM
        return JobEvent(
            id=self._ids.new(EVENT),
            job_id=self._job.id,
            created_at=created_at,
            level=level,
            message=text,
            type="message" if metrics is None else "metrics",
            data=metrics or {},
            source="run" if from_run else "platform",
            sequence=sequence,
        )


def results_csv(events: Iterable[RunEvent]) -> bytes:
    """The job's results file: a row a step, five decimals, blank where nothing was measured. A run
    on pairs has rewards where others have the accuracy of tokens."""
    rows = {int(event.data["step"]): event.data for event in events if event.kind == "step"}
    of_pairs = any("train_reward_margin" in data for data in rows.values())
    columns = _PAIR_COLUMNS if of_pairs else _COLUMNS
    lines = [",".join(("step", *(title for title, _ in columns)))]
    for step, data in sorted(rows.items()):
        cells = [str(step)]
        for _, names in columns:
            values = [data[name] for name in names if data.get(name) is not None]
            cells.append(f"{values[0]:.5f}" if values else "")
        lines.append(",".join(cells))
    return ("\n".join(lines) + "\n").encode()
