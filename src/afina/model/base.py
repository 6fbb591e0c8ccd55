"""Loading a base model the one way that trainer and engine share.

The network is transformers' own, with attention delegated to `afina_ctx` (see
afina.model.attention), all weights frozen, on the CPU or on the device given. Nothing is looked up
outside the folder, and no code that came with a model is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from afina.domain.runs import Precision
from afina.errors import BaseRefused
from afina.model import attention
from afina.model.folder import read_record

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DTYPES: Final[Mapping[Precision, torch.dtype]] = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedBase:
    """A base model in memory, frozen, in evaluation mode. Facts are those of its text network."""

    model: PreTrainedModel
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    precision: Precision

    @property
    def config(self) -> PretrainedConfig:
        return self.model.config.get_text_config()


def load_base(
    folder: Path,
    precision: Precision,
    *,
    attn_implementation: str = attention.NAME,
    device: str = "cpu",
) -> LoadedBase:
    """The model in `folder`. `attn_implementation` differs from afina's own in probes alone."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not folder.is_dir():
        raise BaseRefused(
            f"The base model {folder.name} is no longer on this machine.",
            remedy="Pull it again with `afina models pull`.",
        )
    logging.disable_progress_bar()
    attention.register()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],
            attn_implementation=attn_implementation,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()
        raise BaseRefused(
            f"The model in {folder} cannot be loaded: {reason[0] if reason else 'unknown'}",
            remedy="Check that transformers knows its architecture, and pull it again.",
        ) from error
    model.requires_grad_(False)
    model.eval()
    model.to(device)
    return describe(model, precision)


class ReadyBase:
    """At most one base that was loaded before anybody asked for it."""

    def __init__(self) -> None:
        self._held: tuple[tuple[Path, Precision, str], LoadedBase] | None = None

    def fill(self, folder: Path, precision: Precision) -> None:
        """Loads a base ahead; one that cannot be loaded is left for `load` to refuse."""
        key = _key(folder, precision)
        if key is not None:
            with suppress(BaseRefused):
                self._held = (key, load_base(folder, precision))

    def load(self, folder: Path, precision: Precision) -> LoadedBase:
        """The base that is held, if it is this one and its record has not changed; else as
        `load_base`."""
        held, self._held = self._held, None
        if held is not None and held[0] == _key(folder, precision):
            return held[1]
        return load_base(folder, precision)


def _key(folder: Path, precision: Precision) -> tuple[Path, Precision, str] | None:
    record = read_record(folder)
    return None if record is None else (folder.absolute(), precision, record.sha256)


def describe(model: PreTrainedModel, precision: Precision) -> LoadedBase:
    """A LoadedBase for a network that is in memory already."""
    config = model.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return LoadedBase(
        model=model,
        architecture=type(model).__name__,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=head_dim,
        context_tokens=getattr(config, "max_position_embeddings", None) or 0,
        precision=precision,
    )
