"""Runs a step's plan through the network. The only part of the engine that computes.

The network is transformers' own; linear layers are replaced by faster ones that compute the
same (afina.serving.layers), attention is the step's context, low-rank terms come from the
adapters' pages. Plain decoders run through `afina.serving.decoder`. The runner knows sequences and
blocks, nothing of requests, text or sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
import torch

from afina.model.base import LoadedBase
from afina.serving.adapters import Adapter, AdapterBank
from afina.serving.cache import KvCache, StepContext
from afina.serving.decoder import Decoder
from afina.serving.layers import SampledRows, Sharing, serve_layers
from afina.serving.layout import DecodeRows, Layout, Row, lay_out, rounded_rows
from afina.serving.mirror import Mirror
from afina.serving.native import NativeDecoder
from afina.serving.native_rows import flat_rows
from afina.serving.page_shapes import check_fit
from afina.serving.pages import Pages
from afina.serving.sequences import Chunk, Plan, Prompt, Sequence
from afina.serving.small_weights import Bits

SMALLEST_ROWS = 4
"""Products of fewer rows sum in another order (in bf16 below two, in fp32 below four): a row's
bits would depend on its company. Four rows cost no more than one."""
_LARGEST_DIVERGENCE = {torch.float32: 1e-6, torch.bfloat16: 5e-3}
"""Mean KL divergence between a decoder and the network it stands for; what publishing allows. The
same processor and libraries give the same bits."""
_LARGEST_OF_KERNELS = 1e-2
"""The same for kernels in bf16, which round otherwise than torch does: on the starter both were
0.003 to 0.004 from fp32, and up to 0.0051 from each other. Turning positions by a tenth more than
is right is 0.025, a layer without its second half 0.2 and more."""
_TRIED = 24
"""Positions that a decoder is tried with."""
_LOG = structlog.get_logger(__name__)

Forward = Callable[[StepContext, torch.Tensor], torch.Tensor]
"""From a step and some of its positions to their logits."""


@dataclass(frozen=True)
class StepOutput:
    """Logits `[len(sequences) or more, V]` of those who sample in this step, in order. Whoever has
    a draft checked stands there once for each of its positions, one behind the other."""

    sequences: list[Sequence]
    logits: torch.Tensor


class Runner:
    """One base model, its cache and its adapters."""

    def __init__(
        self,
        base: LoadedBase,
        cache: KvCache,
        bank: AdapterBank,
        sharing: Sharing | None = None,
        bits: Bits | None = None,
    ) -> None:
        self.base = base
        self.bank = bank
        self._cache = cache
        self._rows = DecodeRows()
        self._mirror = Mirror(cache.tokens // 4)
        self.dtype = next(base.model.parameters()).dtype
        self._pages = bank.pages = Pages(self.dtype, 2 * bank.capacity + 8)
        self.layers = serve_layers(base.model, self._pages, sharing, bits)
        decoder = self._decoder()
        self._native = None if decoder is None else self._native_decoder(decoder)
        if self._native is not None:
            self._pages.pack()
        self._forward: Forward = decoder or self._through_transformers

    @property
    def cache_bytes(self) -> int:
        """What the cache takes once all of it has been written."""
        base = self.base
        values = 2 * base.layers * base.kv_heads * base.head_dim
        return int(self._cache.tokens * values * self.dtype.itemsize)

    @property
    def adapter_bytes(self) -> int:
        """What adapters take, of the table that is there for them."""
        return self._pages.used_bytes

    @property
    def is_flat(self) -> bool:
        """Whether steps run through afina's own decoder."""
        return isinstance(self._forward, Decoder)

    @property
    def is_native(self) -> bool:
        """Whether steps run through kernels of our own."""
        return self._native is not None

    @property
    def weights(self) -> str:
        """What the weights that answer are kept in: `bf16`, `fp32`, `int8` or `int4`."""
        bits = self.layers.bits
        return self.base.precision if bits is None else f"int{bits}"

    def read_adapter(
        self,
        sha256: str,
        rank: int,
        pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        scaling: float = 1.0,
    ) -> Adapter:
        """An adapter ready for its pages, its B times `scaling`. Raises InvalidRequest unless every
        layer of it is one of this base's. Any thread may call it."""
        layers = {n: s for p in self.layers.products.values() for n, s in p.layers.items()}
        check_fit(pairs, layers)
        written = self._pages.write(pairs, rank, scaling)
        self._pages.touch_next(rank)
        return Adapter(sha256, rank, written)

    @torch.inference_mode()
    def run(self, plan: Plan) -> StepOutput:
        """Carries out copies, decodes and chunks, and gives the logits to sample from."""
        if plan.copies:
            self._cache.copy(plan.copies)
        if self._native is not None:
            return self._run_native(self._native, plan)
        alone = self.layers.all_small and self.is_flat and not plan.chunks
        smallest = 1 if alone else SMALLEST_ROWS
        layout = lay_out(plan, self._cache.block_tokens, self._rows, smallest)
        if not layout.groups:
            return _with_forks([], None, plan.forks)
        sequences, rows = _sampling_rows(layout.rows())
        context = StepContext(self._cache, layout, self._mirror, self.dtype)
        self._pages.choose(layout.sampled_adapters(), layout.prompt_spans())
        kept = rows + [0] * (max(rounded_rows(len(rows)), smallest) - len(rows))
        self.layers.sampled = _sampled_rows(layout, rows) if self.layers.bits else None
        logits = self._forward(context, torch.tensor(kept))
        return _with_forks(sequences, logits[: len(rows)], plan.forks)

    def _run_native(self, native: NativeDecoder, plan: Plan) -> StepOutput:
        rows = flat_rows(plan)
        if not rows:
            return _with_forks([], None, plan.forks)
        sequences, kept = _sampling_rows(rows)
        return _with_forks(sequences, native(rows, kept), plan.forks)

    def _through_transformers(self, context: StepContext, kept: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.base.model(
            input_ids=context.ids,
            position_ids=context.positions,
            use_cache=False,
            logits_to_keep=kept,
            afina_ctx=context,
        ).logits[0]
        self.layers.forget_step()
        return logits

    @torch.inference_mode()
    def _decoder(self) -> Decoder | None:
        """Afina's own forward pass, if there is one for this network and it gives its logits."""
        try:
            decoder = Decoder(self.base.model, self.layers)
        except (LookupError, AttributeError):
            return None
        ours, theirs = self._tried(decoder), self._tried(self._through_transformers)
        return decoder if self._is_close(ours, theirs) else None

    @torch.inference_mode()
    def _native_decoder(self, decoder: Decoder) -> NativeDecoder | None:
        """The same through the kernels, if they take this network and give its logits."""
        try:
            native = NativeDecoder(decoder, self.layers, self._cache)
        except LookupError:
            return None
        row = Row(self._trial(), 0, _TRIED)
        ours = native([row], range(_TRIED)).float().log_softmax(-1)
        theirs = self._tried(self._through_transformers)
        return native if self._is_close(ours, theirs, _LARGEST_OF_KERNELS) else None

    def _is_close(
        self, ours: torch.Tensor, theirs: torch.Tensor, limit: float | None = None
    ) -> bool:
        divergence = float((theirs.exp() * (theirs - ours)).sum(-1).mean())
        if divergence < (limit or _LARGEST_DIVERGENCE[self.dtype]):
            return True
        _LOG.warning("engine.decoder_differs", divergence=divergence)
        return False

    def _tried(self, forward: Forward) -> torch.Tensor:
        chunk = Chunk(self._trial(), 0, _TRIED)
        layout = lay_out(Plan(chunks=[chunk]), 16, DecodeRows(), SMALLEST_ROWS)
        cache = KvCache(self.base.layers, 2, 16)
        context = StepContext(cache, layout, Mirror(0), self.dtype)
        return forward(context, torch.arange(_TRIED)).float().log_softmax(-1)

    def _trial(self) -> Sequence:
        ids = [(7919 * i + 13) % self.base.vocab_size for i in range(_TRIED)]
        return Sequence(Prompt("trial", ids), 0, 1, blocks=[0, 1])


def _sampled_rows(layout: Layout, kept: list[int]) -> SampledRows | None:
    """The rows of a step that were sampled; None if there are none."""
    positions = layout.sampled_positions()
    if positions is None:
        return SampledRows(None, None)
    among = set(positions)
    of_head = [place for place, at in enumerate(kept) if at in among]
    if not positions:
        return None
    return SampledRows(torch.tensor(positions), torch.tensor(of_head, dtype=torch.long))


def _sampling_rows(rows_of_step: Iterable[Row]) -> tuple[list[Sequence], list[int]]:
    """Positions whose logits are wanted: the last known token's, and those of a draft behind it."""
    sequences: list[Sequence] = []
    rows: list[int] = []
    for row in rows_of_step:
        last = len(row.sequence.prompt.ids) + len(row.sequence.tokens) - 1
        if row.start <= last < row.stop:
            sequences += [row.sequence] * (row.stop - last)
            rows += range(row.at + last - row.start, row.at + row.length)
    return sequences, rows


def _with_forks(
    sequences: list[Sequence], logits: torch.Tensor | None, forks: list[Sequence]
) -> StepOutput:
    """Siblings sample from the logits that were kept when their prompt was computed."""
    if logits is not None and not forks:
        return StepOutput(sequences, logits)
    kept = [fork.prompt.first for fork in forks]
    parts = [logits] if logits is not None else []
    parts += [first.unsqueeze(0) for first in kept if isinstance(first, torch.Tensor)]
    joined = torch.cat(parts) if parts else torch.empty(0, 0)
    return StepOutput(sequences + forks, joined)
