"""Manifests of tunes, and where blobs lie.

A tune is an immutable manifest: a JSON text that names its kind, its base and its files by hash.
The hash of the text is the tune's identity: the engine loads by it, the store refers to it. Both
sides share the layout of the blob folder through the pure functions here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from afina.domain.codec import decode, encode

TuneKind = Literal["lora", "dora", "blocks", "full"]

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_GGUF: Final = "adapter.gguf"
"""What an adapter is called as llama.cpp reads it; made when it is asked for, in no manifest."""
SHARDS: Final = "shards"
"""The name in a manifest's settings of the folder below DATA/shards that the training rows were
prepared in; it is gone when the training file is deleted."""
OWN_WEIGHTS: Final = "weights.safetensors"
"""The file of kinds `blocks` and `full`: a tensor for each parameter that the tune has its own of,
under the name that transformers' network gives it (`model.layers.22.mlp.up_proj.weight`), in bf16.
Every other parameter is the base's. Where the base's head shares the embedding's tensor, a file
with `lm_head.weight` has a head of its own, and the embedding stays the base's; a file with the
embedding alone tunes both."""

FILES_OF: Final[Mapping[TuneKind, tuple[str, ...]]] = {
    "lora": (ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    "dora": (ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    "blocks": (OWN_WEIGHTS,),
    "full": (OWN_WEIGHTS,),
}
"""The files of each kind. `lora` and `dora` are PEFT's format, DoRA with a
`lora_magnitude_vector` `[out]` for each layer."""

SERVED: Final[frozenset[TuneKind]] = frozenset({"lora", "dora", "blocks", "full"})
"""The kinds that the engine answers for; a job for another is refused when it is created."""


@dataclass(frozen=True)
class Manifest:
    """What a tune consists of. `files` maps file names to the sha256 of their blobs."""

    kind: TuneKind
    base_id: str
    base_sha256: str
    files: Mapping[str, str]
    template_sha256: str
    data_sha256: str
    parent: str | None = None
    """The manifest's hash of the tune that this one continues; its own files hold everything."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """How it came about: method, epochs, seed and the like, as text."""

    def to_bytes(self) -> bytes:
        """The canonical JSON text; equal manifests give equal bytes."""
        text = json.dumps(encode(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @staticmethod
    def from_bytes(raw: bytes) -> Manifest:
        """Raises ValueError if `raw` is not a manifest."""
        return decode(Manifest, json.loads(raw), "manifest")


def blob_path(blobs: Path, sha256: str) -> Path:
    """Where the blob of that hash lies below the folder `blobs` (DATA/blobs)."""
    if len(sha256) != 64 or not all(c in "0123456789abcdef" for c in sha256):
        raise ValueError("a blob is named by 64 hexadecimal digits")
    return blobs / "sha256" / sha256[:2] / sha256[2:]
