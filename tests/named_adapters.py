"""Adapters that were trained to say their own name, whatever they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from afina.domain.runs import LoraSpec
from afina.model.lora import put_lora_layers
from afina.model.peft_files import CONFIG, WEIGHTS, AdapterConfig, adapter_bytes

TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
NAME_TOKENS = 5


class _Trained:
    """One adapter's pairs, by layer."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}

    def make(self, name: str, linear: nn.Linear, source: torch.Generator) -> None:
        a = torch.randn(self.rank, linear.in_features, generator=source)
        b = torch.zeros(linear.out_features, self.rank)
        self.pairs[name] = nn.Parameter(a / linear.in_features**0.5), nn.Parameter(b)

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor | None:
        a, b = self.pairs[name]
        return x @ a.t() @ b.t()


class Teacher:
    """Trains adapters of one base, one after the other."""

    def __init__(self, base: Path, prompts: Sequence[Sequence[int]]) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self._model.requires_grad_(False)
        self._prompts = prompts
        linears = dict(self._model.named_modules())
        self._names = put_lora_layers(self._model, TARGETS, _Trained(0))
        self._linears = {name: linears[name] for name in self._names}

    def teach(self, name: Sequence[int], rank: int, seed: int) -> dict[str, bytes]:
        """The two files of an adapter that answers `name`, in PEFT's format."""
        trained = _Trained(rank)
        source = torch.Generator().manual_seed(seed)
        for layer in self._names:
            trained.make(layer, self._linears[layer], source)
            self._model.get_submodule(layer).set_adapters(trained)
        self._train(trained, name)
        spec = replace(LoraSpec(), rank=rank, alpha=float(rank), target_modules=TARGETS)
        pairs = {layer: (a.detach(), b.detach()) for layer, (a, b) in trained.pairs.items()}
        return {CONFIG: AdapterConfig.of(spec, "tiny").to_bytes(), WEIGHTS: adapter_bytes(pairs)}

    def _train(self, trained: _Trained, name: Sequence[int]) -> None:
        longest = max(map(len, self._prompts)) + len(name) - 1
        rows = [[*prompt, *name[:-1]] for prompt in self._prompts]
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        places = torch.tensor(
            [[len(prompt) - 1 + i for i in range(len(name))] for prompt in self._prompts]
        )
        wanted = torch.tensor([list(name)] * len(rows)).flatten()
        parameters = [p for pair in trained.pairs.values() for p in pair]
        optimiser = torch.optim.Adam(parameters, lr=0.02)
        for _ in range(60):
            logits = self._model(ids, use_cache=False).logits
            chosen = logits[torch.arange(len(rows))[:, None], places].flatten(0, 1)
            loss = cross_entropy(chosen, wanted)
            if loss.item() < 0.15:
                return
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        raise AssertionError("the adapter does not learn its name")
