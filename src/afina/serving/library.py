"""What the engine serves from: bases in DATA/models, adapters by hash in DATA/blobs.

Everything is read on a loader thread, never on the step loop, and checked against its hash before
a number of it is used. Errors are the user's: unknown model, wrong base, damaged blob.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog
import torch

from afina.domain.clock import Clock
from afina.domain.codec import decode
from afina.domain.manifests import OWN_WEIGHTS, Manifest, TuneKind, blob_path
from afina.domain.models import BASE_ID, BaseModel
from afina.domain.precision import precision_of_base
from afina.domain.runs import Precision
from afina.errors import (
    BadSettings,
    BaseRefused,
    DataUnreadable,
    Internal,
    InvalidRequest,
    ModelNotFound,
)
from afina.model.base import DTYPES, LoadedBase, load_base
from afina.model.dora import row_norms
from afina.model.kernels.library import library
from afina.model.own_weights import read_weights
from afina.model.peft_files import (
    CONFIG,
    WEIGHTS,
    AdapterConfig,
    Pairs,
    adapter_bytes,
    read_adapter,
    read_dora,
)
from afina.serving.adapters import Adapter, AdapterBank, nobody
from afina.serving.blocks import BlockAllocator
from afina.serving.cache import KvCache
from afina.serving.drafts import DraftIndex, read_index
from afina.serving.journal import Journal
from afina.serving.lane import Lane
from afina.serving.layers import Sharing
from afina.serving.memory import give_back, leave_file
from afina.serving.metrics import EngineMetrics
from afina.serving.overlay import put_weights, share_embedding
from afina.serving.own_lanes import OwnLane
from afina.serving.page_shapes import check_fit
from afina.serving.protocol import UsageRecord
from afina.serving.runner import Runner
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.small_weights import Bits
from afina.settings import Settings
from afina.text.tokenizer import ChatTokenizer

BLOCK_TOKENS = 16
_LOG = structlog.get_logger(__name__)
OWN_KINDS: Final[frozenset[TuneKind]] = frozenset({"blocks", "full", "dora"})
"""Tunes with weights of their own: a lane for each. DoRA's are its base's, with rows of other
lengths, so its lane takes no more memory than an adapter does."""
_OWN_SHARE: Final = 4
_BITS: Final[dict[str, Bits | None]] = {"trained": None, "int8": 8, "int4": 4}


def native_precision() -> Precision:
    """bf16 where the processor multiplies it."""
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def encoder_precision(settings: Settings) -> Precision:
    """The precision that is set, else the native one: torch computes encoders."""
    return native_precision() if settings.precision == "auto" else settings.precision


class Library:
    """Reads bases and adapters of one data directory."""

    def __init__(self, settings: Settings, journal: Journal, clock: Clock) -> None:
        self._settings = settings
        self._journal = journal
        self.metrics = EngineMetrics()
        self._clock = clock
        self.bits: Bits | None = _BITS[settings.engine.weights]
        if self.bits is not None and encoder_precision(settings) == "fp32" and library() is None:
            raise self._no_few_bits("this machine computes in fp32")

    def _no_few_bits(self, why: str) -> BadSettings:
        return BadSettings(
            f"engine.weights is {self._settings.engine.weights}, and {why}.",
            param="engine.weights",
            remedy="Weights in few bits are multiplied in bf16: set engine.weights to trained.",
        )

    def precision(self, record: BaseModel) -> Precision:
        """What a base is computed in. Raises BadSettings where its weights can't have few bits."""
        found = precision_of_base(
            self._settings.precision,
            record,
            native_precision(),
            by_kernels=library() is not None,
        )
        if self.bits is not None and found == "fp32":
            raise self._no_few_bits(f"{record.id} is computed in fp32")
        return found

    def weights(self, lanes: Iterable[Lane]) -> str:
        """What the weights that answer are kept in: those of the bases in memory, or without one
        what would usually be."""
        if self.bits is not None:
            return f"int{self.bits}"
        usual = "bf16" if library() is not None else native_precision()
        if self._settings.precision != "auto":
            usual = self._settings.precision
        return ", ".join(sorted({lane.runner.weights for lane in lanes}) or [usual])

    def record(self, base_id: str) -> BaseModel:
        """A base's record. Raises ModelNotFound or BaseRefused."""
        unknown = ModelNotFound(
            f"There is no base model {base_id[:100]!r} on this machine.",
            param="model",
            remedy="See `afina models list`, or pull it with `afina models pull`.",
        )
        if BASE_ID.fullmatch(base_id) is None:
            raise unknown
        try:
            raw = (self._settings.models / base_id / "afina.json").read_bytes()
            record = decode(BaseModel, json.loads(raw), "afina.json")
        except FileNotFoundError:
            raise unknown from None
        except ValueError as error:
            raise BaseRefused(
                f"The record of base model {base_id!r} is damaged: {error}.",
                remedy="Pull it again.",
            ) from None
        if not record.admitted:
            raise BaseRefused(f"The base model {base_id!r} cannot be served: {record.refusal}.")
        return record

    def size_of(self, base_id: str) -> int:
        """Bytes of a base's weights as they are read. Raises ModelNotFound, BaseRefused."""
        record = self.record(base_id)
        return record.parameters * DTYPES[self.precision(record)].itemsize

    def load_lane(self, base_id: str, is_wanted: Callable[[str], bool] = nobody) -> Lane:
        """A base in memory, ready to answer; adapters stay that are wanted. Takes seconds."""
        precision = self.precision(self.record(base_id))
        folder = self._settings.models / base_id
        engine = self._settings.engine
        tokenizer = ChatTokenizer.load(folder)
        base = load_base(folder, precision)
        leave_file(base.model)
        bank = AdapterBank(engine.adapters_resident, is_wanted)
        lane = self._lane(base_id, base, tokenizer, bank, engine.cache_tokens)
        give_back()
        return lane

    def load_own(self, parent: Lane, sha256: str) -> OwnLane:
        """A tune with weights of its own, ready to answer; what it does not change is its base's
        memory. Takes seconds."""
        manifest = self.manifest(sha256)
        self._check_base(manifest, sha256, parent.base_id)
        if manifest.kind == "dora":
            return self._load_dora(parent, sha256, manifest)
        weights = read_weights(self._verified(manifest.files[OWN_WEIGHTS]))
        base = self._base_of(parent)
        changed = put_weights(base.model, weights)
        share_embedding(base.model, parent.runner.base.model, changed)
        leave_file(base.model, parent.runner.base.model.parameters())
        sharing = Sharing(parent.runner.layers, frozenset(map(id, changed)))
        lane = self._lane(
            parent.base_id, base, parent.tokenizer, AdapterBank(1), self._own_cache(base), sharing
        )
        lane.tune = sha256
        left = {id(parameter) for parameter in base.model.parameters()}
        others = sum(p.nbytes for p in changed if id(p) in left)
        give_back()
        return OwnLane(lane, lane.runner.layers.size + others + lane.runner.cache_bytes)

    def _own_cache(self, base: LoadedBase) -> int:
        """Tokens in the cache of a tune that has one to itself: a quarter of its base's, and
        enough for the longest request that its base takes."""
        whole = self._settings.engine.cache_tokens
        longest = base.context_tokens + BLOCK_TOKENS
        return min(whole, max(whole // _OWN_SHARE, longest))

    def _base_of(self, parent: Lane) -> LoadedBase:
        folder = self._settings.models / parent.base_id
        return load_base(folder, parent.runner.base.precision)

    def _load_dora(self, parent: Lane, sha256: str, manifest: Manifest) -> OwnLane:
        paths = [self._verified(manifest.files[name]) for name in (CONFIG, WEIGHTS)]
        config, pairs, magnitudes = read_dora(paths[0], paths[1])
        base = self._base_of(parent)
        linears = {n: m for n, m in base.model.named_modules() if isinstance(m, torch.nn.Linear)}
        check_fit(pairs, {n: (m.in_features, m.out_features) for n, m in linears.items()})
        gains = {
            name: magnitudes[name].float() / row_norms(linears[name].weight, pair, config.scaling)
            for name, pair in pairs.items()
        }
        share_embedding(base.model, parent.runner.base.model, [])
        leave_file(base.model, parent.runner.base.model.parameters())
        sharing = Sharing(parent.runner.layers, frozenset())
        bank = AdapterBank(1, lambda _: True)
        lane = self._lane(
            parent.base_id, base, parent.tokenizer, bank, self._own_cache(base), sharing
        )
        lane.tune = lane.adapter = sha256
        bank.add(self._read(lane, sha256, config, pairs), 0.0)
        lane.runner.layers.gain(gains)
        size = sum(a.nbytes + b.nbytes for a, b in pairs.values())
        give_back()
        return OwnLane(lane, lane.runner.layers.size + size + lane.runner.cache_bytes)

    def _lane(
        self,
        base_id: str,
        base: LoadedBase,
        tokenizer: ChatTokenizer,
        bank: AdapterBank,
        cache_tokens: int,
        sharing: Sharing | None = None,
    ) -> Lane:
        engine = self._settings.engine
        blocks = max(1, cache_tokens // BLOCK_TOKENS)
        limits = Limits(
            max_batch=engine.max_batch,
            max_waiting=engine.max_queue,
            max_adapters=min(engine.max_batch, engine.adapters_resident),
            keep_answers=self.bits is None,
        )
        # what a tune learned stays as trained, its base's weights are in few bits
        bits = self.bits if sharing is None else None
        lane = Lane(
            base_id,
            Runner(base, KvCache(base.layers, blocks, BLOCK_TOKENS), bank, sharing, bits),
            Scheduler(BlockAllocator(blocks, BLOCK_TOKENS), limits),
            tokenizer,
            clock=self._clock,
            meter=self.meter,
        )
        lane.metrics = self.metrics
        return lane

    def meter(self, record: UsageRecord) -> None:
        """Writes what a request used into the journal, and counts it."""
        self._journal.append(record)
        self.metrics.closed(record)

    def load_adapter(self, lane: Lane, sha256: str) -> Adapter:
        """An adapter from its manifest's hash, checked file by file."""
        manifest = self.manifest(sha256)
        if manifest.kind != "lora":
            raise BaseRefused(f"Tunes of kind {manifest.kind!r} cannot be served yet.")
        self._check_base(manifest, sha256, lane.base_id)
        paths = [self._verified(manifest.files[name]) for name in (CONFIG, WEIGHTS)]
        config, pairs = read_adapter(*paths)
        return self._read(lane, sha256, config, pairs)

    def bare_adapter(self, base_id: str, sha256: str) -> dict[str, bytes]:
        """The files of an adapter for another engine, written anew from what was read: settings
        that are known, matrices, nothing else. Raises what `load_adapter` raises."""
        manifest = self.manifest(sha256)
        if manifest.kind != "lora":
            raise BaseRefused(
                f"This tune is of kind {manifest.kind!r}; the vLLM server that answers for "
                f"{base_id!r} serves LoRA adapters alone.",
                param="model",
                remedy="Let afina's own engine answer for this base (leave it out of "
                "AFINA_ENGINE__VLLM__MODELS), or tune it with LoRA.",
            )
        self._check_base(manifest, sha256, base_id)
        config, pairs = read_adapter(
            *(self._verified(manifest.files[n]) for n in (CONFIG, WEIGHTS))
        )
        return {CONFIG: config.to_bytes(), WEIGHTS: adapter_bytes(pairs)}

    def _read(self, lane: Lane, sha256: str, config: AdapterConfig, pairs: Pairs) -> Adapter:
        return lane.runner.read_adapter(sha256, config.rank, pairs, config.scaling)

    def drafts(self, sha256: str) -> DraftIndex | None:
        """The index of a tune's training answers, if they are on this machine."""
        try:
            return read_index(self._settings.shards, self.manifest(sha256))
        except (DataUnreadable, OSError) as error:
            # Deleted while it was read, say: the tune answers all the same.
            _LOG.info("engine.no_drafts", tune=sha256[:12], error=type(error).__name__)
            return None

    def _check_base(self, manifest: Manifest, sha256: str, base_id: str) -> None:
        if manifest.base_id != base_id:
            raise InvalidRequest(
                f"The tune {sha256[:12]} belongs to base {manifest.base_id!r}, not {base_id!r}.",
                param="model",
            )

    def manifest(self, sha256: str) -> Manifest:
        """A tune's manifest. Raises ModelNotFound, or Internal if it is damaged."""
        try:
            raw = blob_path(self._settings.blobs, sha256).read_bytes()
        except (FileNotFoundError, ValueError):
            raise ModelNotFound(
                f"There is no tuned model with the hash {sha256[:12]!r} on this machine.",
                param="model",
            ) from None
        try:
            if hashlib.sha256(raw).hexdigest() == sha256:
                return Manifest.from_bytes(raw)
        except ValueError:
            pass
        raise _damaged(sha256)

    def _verified(self, sha256: str) -> Path:
        path = blob_path(self._settings.blobs, sha256)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ModelNotFound("A file of the tuned model is gone.", param="model") from None
        if found != sha256:
            raise _damaged(sha256)
        return path


def _damaged(sha256: str) -> Internal:
    return Internal(
        f"The blob {sha256[:12]} of a tuned model is damaged: its bytes do not give its hash.",
        remedy="Restore DATA/blobs from a copy, or tune again.",
    )
