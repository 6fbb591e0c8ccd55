"""Which networks can be written as GGUF, and what llama.cpp calls their parts.

Llama, Mistral, Qwen 2 and Qwen 3: decoders that differ in what stands beside the same products.
Everything that a configuration may say and that changes the numbers is either written or refused
by name; a tensor that has no place in the file is an error, never left out. No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from afina.errors import BaseRefused

_PARTS: Final[Mapping[str, str]] = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE: Final[Mapping[str, str]] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_LAYER: Final = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<part>[a-z_.]+)")
_INTERLEAVED: Final = frozenset({"attn_q", "attn_k"})
_CONVERTER: Final = (
    "Export it merged (`--format merged`) and use llama.cpp's own convert_hf_to_gguf.py."
)


@dataclass(frozen=True)
class _Make:
    """How llama.cpp knows a network: its architecture, and what its parts may hold."""

    name: str
    interleaved: bool = False
    """Whether the two coordinates of a rotation lie side by side, not half a head apart."""
    biases: frozenset[str] = frozenset()
    norms: bool = False
    """Whether heads of queries and keys are normalised."""


_ATTENTION: Final = frozenset({"attn_q", "attn_k", "attn_v"})
_ALL_BIASES: Final = _ATTENTION | {"attn_output", "ffn_gate", "ffn_up", "ffn_down"}
_MAKES: Final[Mapping[str, _Make]] = {
    "LlamaForCausalLM": _Make("llama", interleaved=True, biases=_ALL_BIASES),
    "MistralForCausalLM": _Make("llama", interleaved=True),
    "Qwen2ForCausalLM": _Make("qwen2", biases=_ATTENTION),
    "Qwen3ForCausalLM": _Make("qwen3", norms=True),
}


class Shape:
    """A network as llama.cpp sees it. Raises BaseRefused for one that cannot be written."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        named = (config.get("architectures") or ["a network without a name"])[0]
        make = _MAKES.get(named)
        if make is None:
            raise BaseRefused(
                f"{named} cannot be written as GGUF here; "
                "what can: Llama, Mistral, Qwen 2 and Qwen 3.",
                remedy=_CONVERTER,
            )
        if config.get("hidden_act", "silu") != "silu":
            raise _refused(f"its activation is {config['hidden_act']!r}")
        self._make = make
        self.architecture = make.name
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.width = int(config["hidden_size"])
        self.head_size = int(config.get("head_dim") or self.width // self.heads)
        self.layers = int(config["num_hidden_layers"])
        self.vocab_size = int(config["vocab_size"])
        self._config = config
        self._rope = _rope(config)

    def facts(self) -> dict[str, int | float | str]:
        """The file's own numbers, by llama.cpp's names; floats are stored in 32 bits."""
        config, name = self._config, self.architecture
        found: dict[str, int | float | str] = {
            "block_count": self.layers,
            "context_length": self._context(),
            "embedding_length": self.width,
            "feed_forward_length": int(config["intermediate_size"]),
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
            "rope.dimension_count": self.head_size,
            "rope.freq_base": float(self._rope["rope_theta"]),
            "vocab_size": self.vocab_size,
        }
        if self._rope["rope_type"] == "linear":
            found["rope.scaling.type"] = "linear"
            found["rope.scaling.factor"] = float(self._rope["factor"])
        return {f"{name}.{key}": value for key, value in found.items()}

    def rope_factors(self) -> np.ndarray | None:
        """Llama 3's: what each frequency is divided by, `[head_size / 2]`; None for others.
        Formula: transformers' `_compute_llama3_parameters`."""
        rope = self._rope
        if rope["rope_type"] != "llama3":
            return None
        places = np.arange(0, self.head_size, 2, dtype=np.float64) / self.head_size
        lengths = 2 * math.pi * float(rope["rope_theta"]) ** places
        factor, low, high = (float(rope[k]) for k in _LLAMA3[:3])
        old = float(rope["original_max_position_embeddings"])
        smooth = ((old / lengths - low) / (high - low)).clip(0, 1)
        divisors: np.ndarray = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
        return divisors

    def tensor_name(self, name: str) -> str:
        """llama.cpp's name of a weight or bias. Raises BaseRefused where there is none."""
        layer, _, kind = name.rpartition(".")
        found = self._part(layer)
        part = found.rsplit(".", 1)[-1]
        is_allowed = kind == "weight" or (kind == "bias" and part in self._make.biases)
        if part.endswith(("q_norm", "k_norm")) and not self._make.norms:
            is_allowed = False
        if not found or not is_allowed:
            raise _refused(f"it holds {name}, which {self.architecture} has no place for")
        return f"{found}.{kind}"

    def layer_name(self, layer: str) -> str:
        """llama.cpp's name of a linear layer's weight, for an adapter's terms."""
        return self.tensor_name(f"{layer}.weight")

    def arranged(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The rows of the tensor that llama.cpp calls `name`, in its order: the two coordinates of
        a rotation side by side in queries and keys, where this network is computed so. Of an
        adapter's two matrices only B writes queries and keys."""
        part = next((p for p in name.split(".") if p in _INTERLEAVED), None)
        if not self._make.interleaved or part is None or name.endswith(".lora_a"):
            return rows
        heads = self.heads if part == "attn_q" else self.kv_heads
        pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        return pairs.swapaxes(1, 2).reshape(rows.shape)

    def _part(self, layer: str) -> str:
        if layer in _WHOLE:
            return _WHOLE[layer]
        match = _LAYER.fullmatch(layer)
        if match is None or match["part"] not in _PARTS or int(match["layer"]) >= self.layers:
            return ""
        return f"blk.{int(match['layer'])}.{_PARTS[match['part']]}"

    def _context(self) -> int:
        """Positions: no more than the window, within which a window changes nothing."""
        longest = int(self._config["max_position_embeddings"])
        window = self._config.get("sliding_window")
        if window is None or self._config.get("use_sliding_window") is False:
            return longest
        return min(longest, int(window))


_LLAMA3: Final = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)
_ROPE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": _LLAMA3,
}


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are turned, in today's spelling; older files have two fields for it."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = str(rope.setdefault("rope_type", rope.pop("type", "default")))
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    fields = _ROPE_FIELDS.get(kind)
    if fields is None:
        raise _refused(f"its positions are turned by the rule {kind!r}")
    missing = [name for name in fields if name not in rope]
    if missing:
        raise _refused(f"config.json lacks {missing[0]} of its rule {kind!r} for positions")
    if float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)) != 1.0:
        raise _refused("only part of a head is turned")
    return rope


def _refused(reason: str) -> BaseRefused:
    return BaseRefused(f"The model cannot be written as GGUF: {reason}.", remedy=_CONVERTER)
