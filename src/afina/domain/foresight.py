"""What a run's memory comes to, from its base's numbers: before it starts, and without torch.

The constants were fitted to the largest resident memory of LoRA runs of the starter with steps of
60 to 960 tokens, and of 150 to 1,300 where kernels of our own compute; `benchmarks/estimates.py`
prints the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MEMORY_ERROR: Final = 0.15
"""A fraction; the median over varied LoRA jobs is below it."""
_LIBRARIES: Final = 650_000_000
"""Python, torch and what they allocate beside weights and what a step keeps."""
_LIBRARIES_OF_KERNELS: Final = 300_000_000
"""The same where kernels of our own compute, which prepare nothing beside the weights."""
_TIMES_WEIGHTS: Final = 2
"""The file's pages are mapped while the weights are read from it."""
HEAP_TIMES_WEIGHTS: Final = 2
"""What a trainer touches while it loads, in sizes of its base's file (`afina.training.heap`): short
steps may need less."""
_LIBRARIES_BESIDE_HEAP: Final = 410_000_000
"""What a run whose steps fit into that holds beside it and its weights."""
_ADAPTER_BYTES: Final = 16
"""An adapter's weight, its gradient, and two moments of AdamW, in fp32."""
_OWN_BYTES: Final = 48
"""The same for weights of one's own, with the copies that a checkpoint writes from."""
_TOKEN: Final = 1.3
"""What the allocator takes beside what layers keep for the backward pass."""
_KEPT_WIDTHS: Final = 6
"""Tensors of the hidden width that a layer keeps for its backward pass."""
_PLAIN: Final = frozenset({"llama", "mistral", "qwen2"})
"""Networks whose layers are one operation each, which kernels of our own can compute whole."""
_LEARNED: Final = 0.6
"""The share of tokens that get logits, at most, as chats are."""
HEAD_STEP: Final = 32
"""A head's size is a multiple of it, or no kernel of our own computes its attention."""
FUSED_FROM: Final = 768
"""Rows of so many tokens keep no chances of attention (see `afina.model.packed`)."""


@dataclass(frozen=True)
class Network:
    """The numbers of a base's network that memory depends on."""

    parameters: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    element: int
    """Bytes of a number: 2 in bf16, 4 in fp32."""
    plain: bool = False
    """Whether kernels of our own can compute its layers whole."""

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int, element: int) -> Network | None:
        """From a `config.json`; None where it does not say enough."""
        config = config.get("text_config", config)
        try:
            width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            head_dim = int(config.get("head_dim") or width // heads)
            return cls(
                parameters=parameters,
                width=width,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=head_dim,
                inner=int(config.get("intermediate_size") or 4 * width),
                vocabulary=int(config["vocab_size"]),
                element=element,
                plain=config.get("model_type") in _PLAIN
                and config.get("hidden_act", "silu") == "silu"
                and head_dim % HEAD_STEP == 0
                and element == 2,
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    def adapter_parameters(self, rank: int, modules: tuple[str, ...]) -> int:
        """Of LoRA with this rank on linear layers of these names, by their usual shapes."""
        all_heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = {
            "q_proj": self.width + all_heads,
            "k_proj": self.width + kv,
            "v_proj": self.width + kv,
            "o_proj": all_heads + self.width,
            "gate_proj": self.width + self.inner,
            "up_proj": self.width + self.inner,
            "down_proj": self.inner + self.width,
        }
        return rank * self.layers * sum(sides.get(name, 2 * self.width) for name in modules)

    def token_bytes(
        self, scores: int, learned: float = _LEARNED, *, kernels: bool = False
    ) -> float:
        """What a token of a step keeps until its backward pass, with `scores` chances of attention
        a head, where this share of tokens is `learned`. With `kernels` a layer keeps its input, the
        residual, queries, keys, values, what attention gave, gate and up, and no chances."""
        attention = (self.heads + 2 * self.kv_heads) * self.head_dim
        if kernels:
            layer = 2 * self.width + attention + self.heads * self.head_dim + 2 * self.inner
            return self.element * (layer * self.layers + learned * self.vocabulary)
        layer = _KEPT_WIDTHS * self.width + 3 * attention // 2 + 3 * self.inner
        layer += self.heads * scores
        return self.element * (layer * self.layers + 2 * learned * self.vocabulary)


@dataclass(frozen=True)
class Rows:
    """What memory depends on in the rows of a run."""

    count: int
    tokens: int
    learned: int
    longest: int
    """Tokens of the longest row."""

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return self.tokens / max(1, self.count)

    @property
    def scores(self) -> int:
        """How many chances of attention a token keeps for each head."""
        if self.longest < FUSED_FROM:
            return self.longest
        return 0 if self.mean >= FUSED_FROM else FUSED_FROM - 1


def training_memory(  # noqa: PLR0913
    network: Network,
    rows: Rows,
    *,
    trained: int,
    own: bool,
    batch: int,
    largest: int,
    kernels: bool,
) -> int:
    """Bytes that a trainer holds at most: `trained` parameters (weights of the base's `own`, or of
    adapters), steps of `batch` rows in bins of up to `largest` tokens; `kernels` of our own compute
    them where they can, or none do."""
    tokens = step_tokens(rows.mean, batch, rows.longest, largest)
    learned = min(_LEARNED, rows.learned / max(1, rows.tokens))
    weights = _TIMES_WEIGHTS * network.element * network.parameters
    state = trained * (_OWN_BYTES if own else _ADAPTER_BYTES)
    kernels = kernels and network.plain
    kept = tokens * network.token_bytes(rows.scores, learned, kernels=kernels)
    libraries = _LIBRARIES_OF_KERNELS if kernels else _LIBRARIES
    weighed = network.element * network.parameters
    least = _LIBRARIES_BESIDE_HEAP + (1 + HEAP_TIMES_WEIGHTS) * weighed
    return int(max(least, libraries + weights + state + _TOKEN * kept))


def step_tokens(mean: float, batch: int, longest: int, largest: int) -> int:
    """Tokens of the largest bin of a run: a step of rows somewhat longer than the mean, a bin's
    size at most, the longest row at least."""
    return int(max(longest, min(largest, 1.25 * mean * batch)))
