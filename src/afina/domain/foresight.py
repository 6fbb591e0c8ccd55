"""What a run's memory comes to, from its base's numbers and its way: before it starts, and without
torch.

The constants were fitted to the largest resident memory of runs of the starter: LoRA in bf16 with
steps of 60 to 1,300 tokens by torch and by kernels of our own, and every other way in fp32 with
steps of 600 to 2,000; `benchmarks/estimates.py` prints the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from afina.domain.ways import Way

MEMORY_ERROR: Final = 0.15
"""A fraction; the median over varied jobs is below it."""
_LIBRARIES: Final = 650_000_000
"""Python, torch and what they allocate beside weights and what a step keeps, in bf16."""
_LIBRARIES_IN_FP32: Final = 430_000_000
"""The same where torch multiplies fp32."""
_LIBRARIES_OF_KERNELS: Final = 300_000_000
"""The same where kernels of our own compute, which prepare nothing beside the weights."""
_TIMES_WEIGHTS: Final = 2
"""In bf16 the file's pages are mapped while the weights are read from it; in fp32 they are copied
and go."""
HEAP_TIMES_WEIGHTS: Final = 2
"""What a trainer touches while it loads, in sizes of its base's file (`afina.training.heap`): short
steps may need less."""
_LIBRARIES_BESIDE_HEAP: Final = 410_000_000
"""What a run whose steps fit into that holds beside it and its weights."""
_FILE_ELEMENT: Final = 2
"""Bytes of a number in a base's file."""
_MASTER_BYTES: Final = 16
"""A trained weight in fp32, its gradient, and two moments of AdamW."""
_COPIED_BYTES: Final = 16
"""What a checkpoint of a weight copies, to be written while steps go on: master and moments, and
the tune as it is published."""
_SHARE_FOR_COPIES: Final = 0.25
"""Of what is free, at most, for a copy of masters and moments (`afina.training.background`)."""
_TOKEN: Final = 1.3
"""What the allocator takes beside what layers keep for the backward pass."""
_KEPT_WIDTHS: Final = 6
"""Tensors of the hidden width that a layer with LoRA keeps for its backward pass."""
_MASKED: Final = 1.7
"""What dropout keeps of each input of an adapter: the mask, and the input under it."""
_OWN_INPUTS: Final = 0.75
"""What a layer of one's own weights keeps beside that, in inputs of its products."""
_FOUR_BITS: Final = 5 / 8
"""Bytes of a weight that is held in 4 bits, with the numbers of its group."""
_PAIRS_LOGITS: Final = 7
"""Bytes of a logit that preferences keep beside it, for their log-probabilities in fp32."""
_PLAIN: Final = frozenset({"llama", "mistral", "qwen2"})
"""Networks whose layers are one operation each, which kernels of our own can compute whole."""
MOST_LEARNED: Final = 0.6
"""The share of tokens that get logits, at most, as chats are, where nobody knows more."""
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

    def _sides(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a layer's linear ones, by their usual names."""
        all_heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.width, all_heads),
            "k_proj": (self.width, kv),
            "v_proj": (self.width, kv),
            "o_proj": (all_heads, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }

    def adapter_parameters(self, rank: int, modules: tuple[str, ...]) -> int:
        """Of LoRA with this rank on linear layers of these names, by their usual shapes."""
        sides = self._sides()
        usual = (self.width, self.width)
        return rank * self.layers * sum(sum(sides.get(name, usual)) for name in modules)

    @property
    def layer_parameters(self) -> int:
        """Of one layer, about: what is no embedding, by the number of layers."""
        return (self.parameters - self.vocabulary * self.width) // max(1, self.layers)

    def trained_parameters(self, way: Way) -> int:
        """What a run of this way moves."""
        if way.kind == "full":
            return self.parameters
        if way.kind == "blocks":
            head = self.vocabulary * self.width + self.width if way.norm_and_head else 0
            return min(way.layers, self.layers) * self.layer_parameters + head
        lengths = sum(self._sides().get(n, (0, self.width))[1] for n in way.targets)
        more = self.layers * lengths if way.kind == "dora" else 0
        return self.adapter_parameters(way.rank, way.targets) + more

    def token_bytes(
        self, scores: int, learned: float = MOST_LEARNED, *, kernels: bool = False
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

    def step_bytes(self, way: Way, scores: int, learned: float, *, kernels: bool) -> float:
        """The same of a run of some way, with what the allocator takes."""
        logits = learned * self.vocabulary
        more = _PAIRS_LOGITS * logits if way.pairs else 0
        if kernels:
            kept = self.token_bytes(0, 0, kernels=True)
            kept *= min(way.layers, self.layers) / self.layers if way.kind == "blocks" else 1
            return _TOKEN * (kept + self.element * logits) + more
        layer = _TOKEN * self.token_bytes(0, 0) / (self.element * self.layers) + self._beside(way)
        tuned = min(way.layers, self.layers) if way.kind == "blocks" else self.layers
        wide = _TOKEN if self.element == _FILE_ELEMENT else 1
        rest = self.heads * scores * tuned + 2 * logits
        return self.element * (layer * tuned + wide * rest) + more

    def _beside(self, way: Way) -> float:
        """Numbers that a layer keeps for a token beside those of LoRA on all of its products."""
        sides = self._sides()
        inputs = {"qkv": self.width, "o": sides["o_proj"][0], "gate_up": self.width}
        inputs["down"] = self.inner
        if not way.of_adapters:
            return _OWN_INPUTS * (sum(inputs.values()) - self.width)
        of = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "o_proj": "o"}
        of |= {"gate_proj": "gate_up", "up_proj": "gate_up", "down_proj": "down"}
        kept = {of[name] for name in way.targets if name in of}
        known = bool(kept)
        found = -_TOKEN * sum(size for name, size in inputs.items() if known and name not in kept)
        if way.kind == "dora":
            found += sum(sides.get(name, (0, self.width))[1] for name in way.targets)
        if way.dropout:
            found += _MASKED * sum(sides.get(name, (self.width, 0))[0] for name in way.targets)
        return found


@dataclass(frozen=True)
class Packed:
    """How the steps of a run are packed, seen before it."""

    share: float
    """Of the tokens that are billed, those that go through the network: what rows share counts
    once a step."""
    largest: int
    """Tokens of the largest bin."""


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


def training_memory(  # noqa: PLR0913 - what memory depends on
    network: Network,
    rows: Rows,
    way: Way,
    steps: tuple[int, Packed | None],
    largest: int,
    *,
    kernels: bool,
    free: int | None = None,
) -> int:
    """Bytes that a trainer holds at most: steps of so many rows, packed as is known or guessed, in
    bins of up to `largest` tokens; `kernels` of our own compute them where they can, or none do.
    `free`: what the machine has before it; None: plenty."""
    batch, packed = steps
    tokens = step_tokens(rows.mean, batch, rows.longest, largest)
    tokens = tokens if packed is None else packed.largest
    learned = rows.learned / max(1, rows.tokens)
    learned = min(MOST_LEARNED, learned) if packed is None else min(1.0, learned / packed.share)
    kernels = kernels and network.plain and way.fused
    in_fp32 = network.element != _FILE_ELEMENT
    libraries = _LIBRARIES_OF_KERNELS if kernels else _LIBRARIES
    libraries = _LIBRARIES_IN_FP32 if in_fp32 else libraries
    held = libraries + _weights(network, way, in_fp32=in_fp32)
    trained = network.trained_parameters(way)
    state = trained * (_MASTER_BYTES if way.of_adapters else _MASTER_BYTES + network.element)
    # a copy of adapters is small, and was there when the libraries were measured
    copies = 0 if way.of_adapters else _COPIED_BYTES * trained
    if free is not None and copies > _SHARE_FOR_COPIES * (free - held - state):
        copies = 0
    kept = tokens * network.step_bytes(way, rows.scores, learned, kernels=kernels)
    weighed = _FILE_ELEMENT * network.parameters
    least = _LIBRARIES_BESIDE_HEAP + (1 + HEAP_TIMES_WEIGHTS) * weighed
    return int(max(least, held + state + copies + kept))


def _weights(network: Network, way: Way, *, in_fp32: bool) -> float:
    """Of the base. Those of a run that moves all of them are counted with its masters."""
    if way.kind == "full":
        return 0 if in_fp32 else network.element * network.parameters
    times = 1 if in_fp32 else _TIMES_WEIGHTS
    whole = times * network.element * network.parameters
    if way.base_bits == 16:
        return whole
    # the whole weights are there first, and half of their room is not found again by steps
    linear = network.layers * network.layer_parameters
    return whole - (times * network.element - _FOUR_BITS) * linear / 2


def step_tokens(mean: float, batch: int, longest: int, largest: int) -> int:
    """Tokens of the largest bin of a run: a step of rows somewhat longer than the mean, a bin's
    size at most, the longest row at least."""
    return int(max(longest, min(largest, 1.25 * mean * batch)))
