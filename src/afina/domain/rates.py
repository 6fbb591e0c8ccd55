"""How fast this machine trains: learned from the jobs that finished on it.

A rate that was measured once, when a model was pulled, is wrong for as long as the model is here if
the machine was busy in that minute. Finished jobs are the better witnesses: of the last ones of the
same base, tuning, method and machine those with steps of about the same size are asked, and the
median answers, so that one job on a busy day does not.

Tokens are not all alike: one with loss costs a row of the head, one of a long row is compared with
all before it, and each step has a price of its own. So runs are weighed (`Costs`) before their
rates are compared, in tokens of usual chats: 128 tokens a row, half of them learned, 512 a step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from afina.domain.foresight import Network
from afina.domain.manifests import TuneKind
from afina.domain.methods import BaseBits
from afina.domain.ways import PLAIN, Way

OVERHEAD_S: Final = 10.0
"""Loading the model, saving, parity and publishing, where no job has told it yet."""
_RECENT: Final = 30
_ASKED: Final = 7
_SHORTEST_S: Final = 1.0
"""A job of less says more of its first steps than of the others."""


@dataclass(frozen=True)
class Load:
    """What a run computes, over all its epochs."""

    tokens: int
    """Trained: prefixes counted in every row."""
    rows: int
    steps: int
    learned: int | None = None
    """Tokens with loss; None where nobody counted: half of them."""
    longest: int = 0
    """Tokens of the longest row; 0 where nobody knows: all are alike."""
    computed: int | None = None
    """Tokens that go through the network, what rows share once a step; None: all of them."""
    way: Way = PLAIN
    epochs: int = 1

    @property
    def step_tokens(self) -> float:
        """Tokens of a step, in the mean."""
        return self.tokens / max(1, self.steps)

    @property
    def row_tokens(self) -> float:
        """Tokens of the row that a token stands in, in the mean over tokens: long rows have more of
        them. Exact where rows are alike or all lengths are equally common."""
        mean = self.tokens / max(1, self.rows)
        return mean + max(0.0, self.longest - mean) / 3


@dataclass(frozen=True)
class Costs:
    """What comes to each token's own cost, in tokens."""

    learned: float = 0.3
    """Of a token with loss: its logits."""
    compared: float = 1 / 400
    """Of a token, for each other token of its row."""
    step: float = 150.0
    """Of a step: starting its operations, and the optimiser."""
    layers: int = 30
    """Of the network."""

    @classmethod
    def of(cls, network: Network) -> Costs:
        """From a network's numbers, in proportion to what was measured with the starter."""
        head = network.vocabulary * network.width
        layers = max(1, network.parameters - head)
        return cls(
            learned=_LEARNED * head / layers,
            compared=_COMPARED * network.heads * network.layers / layers,
            step=_STEP * network.layers / layers,
            layers=network.layers,
        )

    def usual_tokens(self, load: Load) -> float:
        """How many tokens of usual chats, by plain LoRA, take as long."""
        learned = load.tokens / 2 if load.learned is None else load.learned
        computed = load.tokens if load.computed is None else load.computed
        row = min(load.row_tokens, _COMPARED_AT_MOST)
        work = load.way.work(self.layers)
        tokens = computed * work.token + computed / max(1, load.epochs) * work.once
        weight = tokens * (1 + self.compared * row)
        weight += self.learned * learned + self.step * work.step * load.steps
        usual = 1 + self.compared * _USUAL_ROW + self.learned / 2 + self.step / _USUAL_STEP
        return weight / usual


_USUAL_ROW: Final = 128
_USUAL_STEP: Final = 512
_LEARNED: Final = 1.1
_COMPARED: Final = 1000.0
_COMPARED_AT_MOST: Final = 768
"""Longer rows are computed another way, in which further tokens cost little."""
_STEP: Final = 5.3e8


@dataclass(frozen=True)
class Workload:
    """What jobs have in common that are about equally fast."""

    base_sha256: str
    kind: TuneKind = "lora"
    base_bits: BaseBits = 16
    method: str = "supervised"
    machine: str = ""
    """Processor and cores: a data directory may be carried to another machine."""


@dataclass(frozen=True)
class PastRun:
    """A run that succeeded: what it was, and what it took."""

    workload: Workload
    tokens: int
    """Trained, over all epochs."""
    steps: int
    seconds: float
    """Of training alone."""
    around_s: float | None
    """Everything else between the trainer's start and its end; None where it was resumed."""
    rows: int | None = None
    """Over all epochs. None, as `learned`, in records of older versions."""
    learned: int | None = None
    longest: int = 0
    computed: int | None = None
    """Tokens that went through the network; None, as what follows, in older records."""
    way: Way | None = None
    epochs: int = 1

    @property
    def load(self) -> Load:
        """What it computed."""
        rows = self.tokens // _USUAL_ROW if self.rows is None else self.rows
        said = (self.learned, self.longest, self.computed, self.known_way, self.epochs)
        return Load(self.tokens, rows, self.steps, *said)

    @property
    def known_way(self) -> Way:
        """As recorded; for older records what its workload says."""
        about = self.workload
        pairs = about.method == "dpo"
        return self.way or Way(about.kind, base_bits=about.base_bits, pairs=pairs)


@dataclass(frozen=True)
class TrainingRate:
    """What an estimate of seconds rests on. `jobs` 0 stands for the measurement at the pull."""

    tokens_per_s: float
    """Tokens of usual chats."""
    overhead_s: float = OVERHEAD_S
    jobs: int = 0
    busy: bool = False
    """Whether the machine was busy when the rate was measured."""
    alike: bool = True
    """Whether the jobs tuned in the way of the one in question; others' rates are weighed."""
    costs: Costs = Costs()

    def training_seconds(self, load: Load) -> float:
        """Of the steps alone."""
        return self.costs.usual_tokens(load) / self.tokens_per_s

    def seconds(self, load: Load) -> float:
        """Of the whole job: its steps, and all that goes with them."""
        return self.overhead_s + self.training_seconds(load)

    @property
    def origin(self) -> str:
        """Where the rate comes from, for people."""
        if self.jobs and not self.alike:
            many = "the one job" if self.jobs == 1 else f"the last {self.jobs} jobs"
            return f"from {many} that finished here with this model, tuned in other ways"
        if self.jobs == 1:
            return "from the one job that finished here with this model"
        if self.jobs:
            return f"from the last {self.jobs} jobs that finished here with this model"
        if self.busy:
            return "measured when the model was pulled, while the machine was busy: a rough guess"
        return "measured when the model was pulled; no job with it has finished here yet"


def learned_rate(
    past: Sequence[PastRun],
    workload: Workload,
    step_tokens: float | None = None,
    costs: Costs = Costs(),
    way: Way | None = None,
) -> TrainingRate | None:
    """From runs in the order in which they ended: those of the same `way` (None: the workload's
    own), else those of its workload, else any of the base and machine; None where there is none.
    `step_tokens` is how many tokens a step of the job in question has."""
    here = (workload.base_sha256, workload.machine)
    known = [run for run in past if (run.workload.base_sha256, run.workload.machine) == here]
    known = [run for run in known if run.seconds >= _SHORTEST_S]
    wanted = way or PastRun(workload, 0, 0, 0.0, None).known_way
    same = [run for run in known if run.known_way == wanted]
    alike = same or [run for run in known if run.workload == workload] or known
    alike = alike[-_RECENT:][::-1]
    if step_tokens:
        alike.sort(key=lambda run: abs(math.log(max(1.0, run.load.step_tokens) / step_tokens)))
    asked = alike[:_ASKED]
    if not asked:
        return None
    around = [run.around_s for run in asked if run.around_s is not None]
    return TrainingRate(
        tokens_per_s=statistics.median(costs.usual_tokens(run.load) / run.seconds for run in asked),
        overhead_s=statistics.median(around) if around else OVERHEAD_S,
        jobs=len(asked),
        costs=costs,
        alike=bool(same),
    )
