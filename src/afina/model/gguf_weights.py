"""From a GGUF file of a Llama-shaped model to a folder as transformers reads it.

Weights are dequantised to bf16, heads are put back into transformers' order (llama.cpp permutes
the rows of query and key), and the tokenizer is rebuilt from its own vocabulary and merges. Only
what the starter needs: one architecture, byte-level BPE. Everything else is refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from afina.errors import BaseRefused

_CONTROL: Final = 3
_NAMES: Final = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(source: Path, target: Path) -> None:
    """Writes config, bf16 weights, tokenizer and template of `source` into the folder `target`."""
    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    if facts["general.architecture"] != "llama" or facts["tokenizer.ggml.model"] != "gpt2":
        raise BaseRefused(f"{source.name} is not a Llama with a byte-level BPE tokenizer.")
    target.mkdir(parents=True, exist_ok=True)
    config = _config(facts, tied=all(t.name != "output.weight" for t in reader.tensors))
    _write_json(target / "config.json", config)
    weights = {_name(t.name): _weight(t, config) for t in reader.tensors}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    _write_tokenizer(facts, target)


def _config(facts: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    heads = facts["llama.attention.head_count"]
    width = facts["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "max_position_embeddings": facts["llama.context_length"],
        # a 32-bit float in the file: 9.99999974e-06 is 1e-5
        "rms_norm_eps": float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(facts["llama.rope.freq_base"]),
        },
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "dtype": "bfloat16",
    }


def _name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, last = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{last}"


def _weight(tensor: ReaderTensor, config: dict[str, Any]) -> torch.Tensor:
    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    part = tensor.name.split(".")[-2]
    if part == "attn_q":
        values = _unpermute(values, config["num_attention_heads"])
    elif part == "attn_k":
        values = _unpermute(values, config["num_key_value_heads"])
    return torch.from_numpy(np.array(values, order="C")).to(torch.bfloat16)


def _unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _write_tokenizer(facts: dict[str, Any], target: Path) -> None:
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    kinds: list[int] = facts["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(target / "tokenizer.json"))
    end = tokens[facts["tokenizer.ggml.eos_token_id"]]
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
            "eos_token": end,
            "unk_token": tokens[facts["tokenizer.ggml.unknown_token_id"]],
            "pad_token": tokens[facts["tokenizer.ggml.padding_token_id"]],
            "model_max_length": facts["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
        },
    )
    (target / "chat_template.jinja").write_text(facts["tokenizer.chat_template"])
    _write_json(
        target / "generation_config.json",
        {
            "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
            "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
            "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
