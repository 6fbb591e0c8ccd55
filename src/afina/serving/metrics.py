"""What the engine counts of its own work, in Prometheus' format.

Requests, tokens and times to the first token are counted as they happen; what stands in queues and
memory is read when somebody asks. A tune is labelled by the first twelve digits of its manifest's
hash, the base itself by an empty text: the engine knows no public names. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from afina.serving.protocol import UsageRecord

if TYPE_CHECKING:
    from afina.serving.lane import Lane
    from afina.serving.speculation import Checked

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_MODEL: Final = ("base", "tune")
_FIRST_TOKEN_S: Final = (0.025, 0.05, 0.1, 0.15, 0.25, 0.4, 0.75, 1.5, 3.0, 6.0, 15.0, 60.0)
_STEP_S: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_GAUGES: Final = {
    "running": "Answers in the batch.",
    "waiting": "Requests of which nothing has started.",
    "adapters_resident": "Adapters in memory.",
    "cache_blocks_free": "Blocks of the key-value cache that nobody refers to.",
    "cache_blocks_kept": "Blocks kept for prompts that begin alike.",
    "weights_bytes": "What the weights take that a base or tune has for itself.",
    "cache_bytes": "What the key-value cache takes once all of it has been written.",
    "adapter_bytes": "What adapters in memory take.",
}


@dataclass(frozen=True)
class Elsewhere:
    """What stands at another server for a base: how the caches there are is not told."""

    base: str
    running: int
    waiting: int
    adapters: int


class EngineMetrics:
    """The counters of one engine."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "requests", "Requests by how they ended.", *_MODEL, "outcome"
        )
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.", *_MODEL)
        self._cached = self._counter(
            "cached_tokens", "Tokens of prompts that were found computed.", *_MODEL
        )
        self._completion = self._counter("completion_tokens", "Tokens of answers.", *_MODEL)
        self._drafted = self._counter(
            "draft_tokens", "Tokens drafted from a tune's training answers.", *_MODEL
        )
        self._accepted = self._counter(
            "draft_tokens_accepted", "Drafted tokens that the network chose too.", *_MODEL
        )
        self._checks = self._counter("draft_checks", "Rows of steps that checked a draft.", *_MODEL)
        self._loads = self._counter("adapter_loads", "Adapters brought into memory.", "base")
        self._first = self._histogram(
            "first_token_seconds", "From a request's arrival to its first token.", _FIRST_TOKEN_S
        )
        self._steps = self._histogram("step_seconds", "One step of a batch.", _STEP_S)
        self._rows = self._histogram("step_rows", "Answers that got a token in a step.", _ROWS)
        self._gauges = {
            name: Gauge(f"afina_engine_{name}", said, ("base", "tune"), registry=self._registry)
            for name, said in _GAUGES.items()
        }

        self._resident = Gauge(
            "afina_engine_resident_bytes",
            "Memory of the engine's process.",
            registry=self._registry,
        )

    def closed(self, record: UsageRecord) -> None:
        """A metered request has ended."""
        model = record.base, _short(record.adapter)
        self._requests.labels(*model, record.outcome).inc()
        self._prompt.labels(*model).inc(record.prompt_tokens)
        self._cached.labels(*model).inc(record.cached_tokens)
        self._completion.labels(*model).inc(record.completion_tokens)

    def first_token(self, base: str, seconds: float) -> None:
        """A request has its first token."""
        self._first.labels(base).observe(seconds)

    def stepped(self, base: str, rows: int, seconds: float) -> None:
        """A step was computed."""
        self._steps.labels(base).observe(seconds)
        self._rows.labels(base).observe(rows)

    def checked(self, base: str, check: Checked) -> None:
        """A draft was checked."""
        model = base, _short(check.tune)
        self._drafted.labels(*model).inc(check.drafted)
        self._accepted.labels(*model).inc(check.stood)
        self._checks.labels(*model).inc()

    def loaded(self, base: str) -> None:
        """An adapter came into memory."""
        self._loads.labels(base).inc()

    def render(self, lanes: Iterable[Lane], others: Iterable[Elsewhere] = ()) -> bytes:
        """The whole exposition, with what stands in queues and memory now."""
        for gauge in self._gauges.values():
            gauge.clear()
        for lane in lanes:
            scheduler = lane.scheduler
            found = {
                "running": len(scheduler.running),
                "waiting": scheduler.waiting,
                "adapters_resident": len(lane.runner.bank.resident),
                "cache_blocks_free": scheduler.free_blocks,
                "cache_blocks_kept": len(scheduler.prefixes),
                "weights_bytes": lane.runner.layers.size,
                "cache_bytes": lane.runner.cache_bytes,
                "adapter_bytes": lane.runner.adapter_bytes,
            }
            for name, value in found.items():
                self._gauges[name].labels(lane.base_id, _short(lane.tune)).set(value)
        for other in others:
            self._gauges["running"].labels(other.base, "").set(other.running)
            self._gauges["waiting"].labels(other.base, "").set(other.waiting)
            self._gauges["adapters_resident"].labels(other.base, "").set(other.adapters)
        self._resident.set(resident_bytes())
        return generate_latest(self._registry)

    def _counter(self, name: str, said: str, *labels: str) -> Counter:
        return Counter(f"afina_engine_{name}", said, labels, registry=self._registry)

    def _histogram(self, name: str, said: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"afina_engine_{name}", said, ("base",), buckets=buckets, registry=self._registry
        )


def resident_bytes() -> int:
    """Memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _short(sha256: str | None) -> str:
    return "" if sha256 is None else sha256[:12]
