"""The one seam between afina and transformers' networks: an attention function that delegates.

Training and serving both load models with `attn_implementation="afina"` and call them with flat
`[1, T]` inputs and one keyword, `afina_ctx`: an object with `attend`. What is packed, cached or
shared is the context's business. No mask function is registered, so mask arguments arrive as None.
A keyword that changes the attention and that we do not know is refused, never swallowed.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "afina"
_HARMLESS = frozenset(
    {"position_ids", "use_cache", "output_router_logits", "cache_position", "is_causal"}
)


class AttentionContext(Protocol):
    """What `afina_ctx` must be."""

    def attend(
        self,
        layer: int,
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention of H query heads over G key heads (H a multiple of G, not repeated), after
        RoPE. Returns `[1, T, H, D]`."""
        ...


class AttentionRefused(ValueError):
    """A network's attention is more than what contexts compute."""


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    afina_ctx: AttentionContext | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _HARMLESS)
    if unknown:
        raise AttentionRefused(
            f"its attention has a part that afina does not compute: {unknown[0]}"
        )
    if afina_ctx is None:
        raise ValueError("the model must be called with afina_ctx")
    if attention_mask is not None or dropout:
        raise AttentionRefused("its attention has a mask or a dropout of its own")
    out = afina_ctx.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        query,
        key,
        value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window=sliding_window,
        softcap=softcap,
    )
    return out, None


def register() -> None:
    """Makes `attn_implementation="afina"` known to transformers. Idempotent."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
