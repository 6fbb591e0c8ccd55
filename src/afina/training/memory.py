"""How large a bin this machine's memory holds: planned before the first step, halved when the plan
was wrong.

A bin's size changes how a step is computed, never what: the rows of a step are spread over more
bins, and their gradients are summed. Where weights are sharded a step that ran out of memory cannot
be taken again, because the other processes are in the middle of it: the run goes on from its
checkpoint, with as many halvings as halvings.json in its directory counts.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from afina.domain.foresight import FUSED_FROM, MOST_LEARNED, Network
from afina.domain.sayings import Said, say
from afina.domain.ways import Way
from afina.errors import TrainingFailed
from afina.model.base import LoadedBase

HALVINGS: Final = 2
HALVINGS_FILE: Final = "halvings.json"
_USABLE: Final = 0.8
"""Of the memory that is free before the first step; the rest is for what the plan leaves out."""


class DoesNotFit(TrainingFailed):
    """Memory ran out in a step. `in_smaller_bins`: whether it can go on from its checkpoint."""

    in_smaller_bins: bool = False


def halvings_of(root: Path) -> int:
    """How often memory ran out in the sharded run at `root`."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((root / HALVINGS_FILE).read_bytes())["halvings"])
    return 0


def note_halving(root: Path, halvings: int) -> None:
    """Keeps that number; any process may say it, and several may say the same."""
    partial = root / f".{HALVINGS_FILE}.{os.getpid()}"
    partial.write_text(json.dumps({"halvings": halvings}))
    partial.replace(root / HALVINGS_FILE)


def bytes_of_token(base: LoadedBase, longest: int, way: Way, *, kernels: bool) -> int:
    """What a token of a bin keeps in memory until its backward pass, when chats have `longest`
    tokens: what layers keep of it in a run of this way (all of them by `kernels` of our own, or
    not), the chances of attention, and the logits with their gradients."""
    config = base.config
    network = Network(
        parameters=0,
        width=base.hidden_size,
        layers=base.layers,
        heads=base.heads,
        kv_heads=base.kv_heads,
        head_dim=base.head_dim,
        inner=getattr(config, "intermediate_size", None) or 4 * base.hidden_size,
        vocabulary=base.vocab_size,
        element=2 if base.precision == "bf16" else 4,
    )
    capped = getattr(config, "attn_logit_softcapping", None) is not None  # has no fused kernel
    scores = longest if capped else min(longest, FUSED_FROM)
    return int(network.step_bytes(way, scores, MOST_LEARNED, kernels=kernels))


class Capacities:
    """The sizes of bins that a run uses: those of its spec that memory holds."""

    def __init__(
        self,
        capacities: Sequence[int],
        longest: int,
        token_bytes: int,
        free: int | None = None,
        *,
        processes: int = 1,
        halved: int = 0,
    ) -> None:
        """`longest` is the longest row's tokens, `free` the bytes that are free (as found), for so
        many processes of the run on this machine. `halved`: how often memory has run out before."""
        self._all = tuple(capacities)
        self._longest = longest
        self._token_bytes = max(1, token_bytes) * processes
        self._halved = min(halved, HALVINGS)
        fitting = self.fitting(free)
        self.planned = self._at_least(fitting)
        self.said: list[Said] = []
        """What the user should know, until it is told."""
        if max(self.planned) < max(self._all):
            self.said.append(say("bins_planned", n=max(self.planned), all=max(self._all)))
        for _ in range(self._halved):
            self.planned = self._at_least(max(self.planned) // 2)
        if self._halved:
            self.said.append(say("bins_halved_before", n=max(self.planned)))

    def fitting(self, free: int | None = None) -> int:
        """The tokens of a bin that free memory holds, by the plan."""
        available = psutil.virtual_memory().available if free is None else free
        return int(_USABLE * available / self._token_bytes)

    def tell(self) -> tuple[Said, ...]:
        """What is to be said now, once."""
        told, self.said = tuple(self.said), []
        return told

    def _at_least(self, tokens: int) -> tuple[int, ...]:
        """The sizes up to `tokens`, and the first one that holds the longest row."""
        needed = next((c for c in self._all if c >= self._longest), max(self._all))
        return tuple(c for c in self._all if c <= max(tokens, needed))

    @property
    def can_halve(self) -> bool:
        """Whether smaller bins are left to try."""
        smaller = self._at_least(max(self.planned) // 2)
        return self._halved < HALVINGS and max(smaller) < max(self.planned)

    def too_large(self, step: int) -> DoesNotFit:
        """What a run says whose step does not fit."""
        return DoesNotFit(
            f"Step {step} does not fit into memory, in bins of {max(self.planned)} tokens.",
            code="out_of_memory",
            remedy=f"About {self.fitting()} tokens would fit as memory is now: make rows no "
            "longer than that, close other programs, or choose a smaller base.",
        )

    def halve(self, step: int) -> None:
        """Half as large bins from now on. Raises DoesNotFit after two halvings, or where one row
        alone is too much."""
        gc.collect()
        if not self.can_halve:
            raise self.too_large(step)
        before = max(self.planned)
        self._halved += 1
        self.planned = self._at_least(before // 2)
        self.said.append(say("bins_halved", step=step, n=max(self.planned), before=before))


def peak_rss_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
