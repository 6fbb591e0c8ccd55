"""Tiny random models made on the spot: a folder as transformers saves it, with tokenizer,
ChatML template and afina's record, in well under a second.

The tokenizer is a byte-level BPE over a few English words, so any text can be written with it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from afina.domain.models import BaseModel

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORDS = (
    "the quick brown fox jumps over the lazy dog and says hello to the user, assistant, system. "
    "what is the capital of the world? thou art a model; the model answers in the old manner. "
)
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_OWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": 8}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"sliding_window": 8, "query_pre_attn_scalar": 16},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "sliding_window": 8,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {}),
    "granite": ("GraniteConfig", "GraniteForCausalLM", {"logits_scaling": 2.0}),
    "phi": ("PhiConfig", "PhiForCausalLM", {}),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}


def tiny_tokenizer(vocab_size: int = 384) -> Tokenizer:
    """A byte-level BPE tokenizer with the three special tokens at ids 0, 1 and 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_WORDS] * 4, trainer)
    return tokenizer


def make_tiny_model(
    folder: Path,
    *,
    architecture: str = "llama",
    seed: int = 0,
    dtype: str = "float32",
    base_id: str | None = None,
    **shape: Any,
) -> BaseModel:
    """Writes a random model into `folder` and returns its record, which is there as afina.json.

    `shape` overrides fields of the configuration, such as `num_hidden_layers`.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    from afina.model.folder import folder_sha256, write_record

    tokenizer = tiny_tokenizer()
    config_name, model_name, own = _OWN[architecture]
    fields = {**_SHAPE, **own, **shape, "vocab_size": tokenizer.get_vocab_size()}
    config = getattr(transformers, config_name)(**fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_name)(config).to(getattr(torch, dtype))
        # initial weights of 0.02 make all logits alike; larger ones tell positions apart
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_tiny_tokenizer(folder, tokenizer)
    record = BaseModel(
        id=base_id or f"tiny-{architecture}",
        path=str(folder.absolute()),
        sha256=folder_sha256(folder),
        created_at=1_700_000_000,
        architecture=model_name,
        parameters=sum(p.numel() for p in model.parameters()),
        context_tokens=int(fields["max_position_embeddings"]),
        capabilities={"train_tokens_per_s": 1000.0, "hidden_size": 64},
    )
    write_record(folder, record)
    return record


def spoil(folder: Path) -> None:
    """Puts an infinite weight into a model; its record then names the new bytes."""
    from safetensors.torch import load_file, save_file

    from afina.model.folder import folder_sha256, read_record, write_record

    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    record = read_record(folder)
    assert record is not None
    write_record(folder, replace(record, sha256=folder_sha256(folder)))


def write_tiny_tokenizer(folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """The tokenizer's files and the template alone, for tests that need no network."""
    folder.mkdir(parents=True, exist_ok=True)
    (tokenizer or tiny_tokenizer()).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation))
