"""What is exported as GGUF computes in llama.cpp what it computes here.

The judge is llama.cpp's own server (package `xllamacpp`); what can be checked without it is read
back with the package `gguf`. Weights are 32-bit floats, and so are the judge's caches: what is left
is the order of sums.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from tests.tiny import make_tiny_model
from tests.tiny_run import make_run

from afina.domain.runs import RunPaths
from afina.errors import BaseRefused, InvalidRequest
from afina.model.gguf_export import (
    AdapterFiles,
    Label,
    Talk,
    Weights,
    write_adapter,
    write_model,
)
from afina.model.gguf_weights import convert_gguf
from afina.model.merge import merge
from afina.model.peft_files import CONFIG, WEIGHTS
from afina.text.renderer import Renderer
from afina.text.template import read_template
from afina.training.given import read_spec
from afina.training.run import run_directory

LARGEST_DIFFERENCE = 1e-3
"""Of a log-probability, in nats."""
TEXTS = (
    "Hello, world!  Two  spaces, and 1234567 and 3.14159",
    "¿Qué pasa, señor? Ação não é reação — naïve café №5",
    "日本語のテキスト 🙂👩‍👩‍👧 ½ ² Ⅷ ٣٤",
    "\n\n  \tindented\r\nlines \u00a0 and\u200b invisible",
    "I'll we've don't THEY'RE <|not_a_token|> a_b-c",
    "",
)
CHAT = [
    {"role": "system", "content": "Answer in the old manner."},
    {"role": "user", "content": "what is the capital of the world?"},
]


def export(folder: Path, target: Path, weights: Weights = Weights.F32) -> Path:
    renderer = Renderer.load(folder)
    talk = Talk(read_template(folder).default, renderer.end_token, renderer.tokenizer.opening_ids)
    write_model(folder, target, talk, Label("tiny", "apache-2.0"), weights)
    return target


@contextmanager
def llama_cpp(*files: Path) -> Iterator[httpx2.Client]:
    command = [sys.executable, str(Path(__file__).parent / "llama_cpp.py"), *map(str, files)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http"), "the server of llama.cpp did not start"
        with httpx2.Client(base_url=address, timeout=60) as client:
            yield client
        assert process.stdin is not None
        process.stdin.close()


def continued(
    client: httpx2.Client, ids: list[int], banned: list[int], tokens: int = 12
) -> list[dict[str, Any]]:
    """llama.cpp's greedy continuation without the tokens `banned`: at each position the id and the
    best ones with log-probabilities, which are those of all tokens."""
    body = {
        "prompt": ids,
        "n_predict": tokens,
        "temperature": 0,
        "n_probs": 8,
        "cache_prompt": False,
        "logit_bias": [[id, False] for id in banned],
    }
    answer = client.post("/completion", json=body).raise_for_status().json()
    return list(answer["completion_probabilities"])


def untold(folder: Path) -> list[int]:
    """Tokens that are no whole characters: llama.cpp tells no probabilities beside them."""
    tokenizer = Renderer.load(folder).tokenizer
    texts = ((id, tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
    return [id for id, text in texts if not text.isascii() or id in tokenizer.control_ids]


def ours(folder: Path, ids: list[int]) -> torch.Tensor:
    """Log-probabilities `[T, V]` of the folder's network in 32 bits, by transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)


def assert_same(client: httpx2.Client, prompt: list[int], folder: Path, tokens: int = 12) -> float:
    """llama.cpp continues `prompt` as the network of `folder`; the first best's log-probability."""
    banned = untold(folder)
    found = continued(client, prompt, banned, tokens)
    told = [step["id"] for step in found]
    assert len(told) == tokens
    logs = ours(folder, prompt + told)[len(prompt) - 1 : -1]
    allowed = logs.clone()
    allowed[:, banned] = -torch.inf
    assert told == allowed.argmax(-1).tolist()
    for place, step in enumerate(found):
        for one in step["top_logprobs"]:
            assert abs(one["logprob"] - float(logs[place, one["id"]])) < LARGEST_DIFFERENCE
    return float(found[0]["logprob"])


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_llama_cpp_continues_an_exported_base_as_transformers_does(
    architecture: str, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    make_tiny_model(folder, architecture=architecture, max_position_embeddings=256)
    prompt = Renderer.load(folder).prompt(CHAT)[-6 if architecture == "mistral" else 0 :]
    tokens = 2 if architecture == "mistral" else 12  # the window is eight positions
    with llama_cpp(export(folder, tmp_path / "base.gguf")) as client:
        assert_same(client, prompt, folder, tokens)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gguf") / "run"
    make_run(root, rows=6)
    run_directory(root)
    return root


def adapter_of(root: Path) -> tuple[Path, Path]:
    """The base's folder and the adapter's."""
    return Path(read_spec(RunPaths(root)).base.path), max(RunPaths(root).checkpoints.iterdir())


def test_llama_cpp_answers_for_base_and_adapter_and_for_both_merged_as_we_do(
    run: Path, tmp_path: Path
) -> None:
    base, adapter = adapter_of(run)
    merge(base, adapter, tmp_path / "merged")
    prompt = Renderer.load(base).prompt(CHAT)
    lora = tmp_path / "adapter.gguf"
    write_adapter(AdapterFiles(adapter / CONFIG, adapter / WEIGHTS, base), lora, Label("tune"))
    whole = export(base, tmp_path / "base.gguf")
    with llama_cpp(whole) as client:
        plain = assert_same(client, prompt, base)
    with llama_cpp(whole, lora) as client:
        tuned = assert_same(client, prompt, tmp_path / "merged")
    with llama_cpp(export(tmp_path / "merged", tmp_path / "merged.gguf")) as client:
        assert_same(client, prompt, tmp_path / "merged")
    assert abs(tuned - plain) > 10 * LARGEST_DIFFERENCE


def test_llama_cpp_splits_and_renders_as_we_do(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_tiny_model(folder)
    assert_texts_alike(folder, export(folder, tmp_path / "base.gguf"))


def assert_texts_alike(folder: Path, file: Path) -> None:
    renderer = Renderer.load(folder)
    with llama_cpp(file) as client:
        for text in TEXTS:
            body = {"content": text, "add_special": True, "parse_special": False}
            found = client.post("/tokenize", json=body).raise_for_status().json()["tokens"]
            assert found == renderer.tokenizer.encode(text), text
        for chat in (CHAT, CHAT[1:]):
            answer = client.post("/apply-template", json={"messages": chat}).raise_for_status()
            body = {"content": answer.json()["prompt"], "add_special": True, "parse_special": True}
            found = client.post("/tokenize", json=body).raise_for_status().json()["tokens"]
            assert found == renderer.prompt(chat)


@pytest.mark.starter
def test_the_starter_answers_in_llama_cpp_with_our_text(starter_dir: Path, tmp_path: Path) -> None:
    file = export(starter_dir, tmp_path / "starter.gguf")
    assert_texts_alike(starter_dir, file)
    renderer = Renderer.load(starter_dir)
    with llama_cpp(file) as client:
        body = {"messages": CHAT, "max_tokens": 24, "temperature": 0}
        said = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    text = said["choices"][0]["message"]["content"]
    prompt = renderer.prompt(CHAT)
    best = ours(starter_dir, prompt + renderer.tokenizer.encode(text))[len(prompt) - 1 : -1]
    assert renderer.tokenizer.decode(best.argmax(-1).tolist()) == text


# -- without the judge ---------------------------------------------------------------------------


def test_a_base_comes_back_from_its_file_bit_by_bit(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_tiny_model(folder, dtype="bfloat16")
    convert_gguf(export(folder, tmp_path / "base.gguf", Weights.BF16), tmp_path / "back")
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_file_says_what_llama_cpp_needs_to_know(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_tiny_model(folder)
    reader = GGUFReader(export(folder, tmp_path / "base.gguf", Weights.Q8_0))
    facts = {name: found.contents() for name, found in reader.fields.items()}
    assert facts["general.architecture"] == "llama"
    assert facts["tokenizer.ggml.pre"] == "gpt-2"
    assert facts["tokenizer.ggml.eos_token_id"] == 2
    assert facts["tokenizer.ggml.eot_token_id"] == 2
    assert facts["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text()
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "gemma", architecture="gemma2")
    with pytest.raises(BaseRefused, match="Gemma2ForCausalLM"):
        export(tmp_path / "gemma", tmp_path / "gemma.gguf")
    folder = tmp_path / "base"
    make_tiny_model(folder)
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(
        tokenizer.replace('"use_regex":true', '"use_regex":false').replace(
            '"use_regex": true', '"use_regex": false'
        )
    )
    with pytest.raises(BaseRefused, match="splitting text"):
        export(folder, tmp_path / "base.gguf")
    config = (folder / "config.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "config.json").write_text(config.replace('"default"', '"yarn"'))
    with pytest.raises(BaseRefused, match="'yarn'"):
        export(folder, tmp_path / "base.gguf")
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == []


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "base")
    (tmp_path / "base.gguf").write_text("mine")
    with pytest.raises(InvalidRequest, match="there already"):
        export(tmp_path / "base", tmp_path / "base.gguf")
    assert (tmp_path / "base.gguf").read_text() == "mine"
