"""Tokenizers and chat templates of several families, tiny, made on the spot: folders with what the
renderer reads and no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

_WORDS = (
    "system user assistant model the quick brown fox says hello to the lazy dog. What art thou? "
    "I am 2026 models of language; forsooth, it doth answer.\n\nYes\n no   \n\n\n never. "
    "Olá, você está bem? ¿Qué tal? naïve café 日本語 🎉👩‍👩‍👧 <b>x</b> [INST] [/INST] "
)

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content']"
    " + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
REASONING = (
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content and not loop.last %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\nTools:' }}{%- for tool in tools %}"
    "{{- '\n' + (tool | tojson) }}{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content %}{{- message.content }}{%- endif %}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- '\n<tool_call>' + call.function.name + ' ' + (call.function.arguments | tojson) }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template with the tokenizer it goes with."""

    template: str
    special: tuple[AddedToken, ...]
    build: Callable[[tuple[AddedToken, ...]], Tokenizer]
    bos: str | None
    eos: str
    system: bool = True


def _special(*texts: str, **flags: Any) -> tuple[AddedToken, ...]:
    return tuple(AddedToken(text, special=True, normalized=False, **flags) for text in texts)


def _train(tokenizer: Tokenizer, special: tuple[AddedToken, ...], **options: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=options.pop("vocab_size", 700),
        special_tokens=list(special),
        show_progress=False,
        **options,
    )
    tokenizer.train_from_iterator([_WORDS] * 4, trainer)
    return tokenizer


def byte_level(special: tuple[AddedToken, ...]) -> Tokenizer:
    """Like GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, special, initial_alphabet=sorted(pre.ByteLevel.alphabet()))


def byte_level_split(special: tuple[AddedToken, ...]) -> Tokenizer:
    """Like Llama 3: another pattern, line breaks glued to each other."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(pattern), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, special, initial_alphabet=sorted(pre.ByteLevel.alphabet()))


def _byte_fallback(tokenizer: Tokenizer, special: tuple[AddedToken, ...]) -> Tokenizer:
    """Trains, then gives the model a token for each byte."""
    bytes_ = tuple(AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256))
    _train(tokenizer, (*special, *bytes_))
    data = json.loads(tokenizer.to_str())
    kept = {token.content for token in special}
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in kept]
    data["model"]["byte_fallback"] = True
    data["model"]["fuse_unk"] = True
    return Tokenizer.from_str(json.dumps(data))


def sentence_piece(special: tuple[AddedToken, ...]) -> Tokenizer:
    """Like Gemma: spaces become ▁, no pre-tokenizer, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre.Split("▁", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _byte_fallback(tokenizer, special)


def metaspace(special: tuple[AddedToken, ...]) -> Tokenizer:
    """Like Mistral: a space in front of the first piece alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _byte_fallback(tokenizer, special)


_IM = _special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FAMILIES = {
    "chatml": Family(CHATML, _IM, byte_level, "<|im_start|>", "<|im_end|>"),
    "llama3": Family(
        LLAMA3,
        _special("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        byte_level_split,
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": Family(
        GEMMA,
        _special("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        sentence_piece,
        "<bos>",
        "<eos>",
        system=False,
    ),
    "mistral": Family(
        MISTRAL, _special("<unk>", "<s>", "</s>"), metaspace, "<s>", "</s>", system=False
    ),
    "phi3": Family(
        PHI3,
        _special("<|endoftext|>")
        + _special("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", rstrip=True),
        byte_level,
        None,
        "<|endoftext|>",
    ),
}
REASONING_FAMILY = Family(REASONING, _IM, byte_level, None, "<|im_end|>")
TOOLS_FAMILY = Family(TOOLS, _IM, byte_level, None, "<|im_end|>")


def make_folder(folder: Path, family: Family, context_tokens: int = 512) -> Path:
    """Writes a model folder without a model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = family.build(family.special)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos,
        "eos_token": family.eos,
        "chat_template": family.template,
    }
    eos = tokenizer.token_to_id(family.eos)
    written = {
        "tokenizer_config.json": {k: v for k, v in config.items() if v is not None},
        "config.json": {"max_position_embeddings": context_tokens, "eos_token_id": eos},
    }
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content))
    return folder
