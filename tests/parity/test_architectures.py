"""Each architecture that we name: a run trains it, what is published loads in PEFT and, merged, in
transformers, and the engine answers with it; all of them say what the trainer said."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from tests.engine_rig import Asked, ask_all, load_adapter, make_lane, put_blob
from tests.tiny_run import make_run, read_events

from afina.domain.clock import ManualClock
from afina.domain.manifests import FILES_OF, Manifest
from afina.domain.runs import LoraSpec, OptimizerSpec, RunResult, RunSpec, TuneSpec
from afina.inside_settings import EngineSettings
from afina.model.base import load_base
from afina.model.merge import merge
from afina.model.probe import lora_targets, probe
from afina.serving.journal import Journal
from afina.serving.library import Library
from afina.settings import Settings
from afina.training.run import run_directory

ARCHITECTURES = (
    "llama",
    "qwen3",
    "gemma3",
    "mistral",
    "phi",
    "phi3",
    "granite",
    "mixtral",
    "qwen3_moe",
)
WITHIN = 2e-5
"""Of log-probabilities in fp32; what was trained moves them by far more."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@dataclass(frozen=True)
class Trained:
    root: Path
    spec: RunSpec
    result: RunResult

    @property
    def base(self) -> Path:
        return Path(self.spec.base.path)

    @property
    def folder(self) -> Path:
        return self.root / self.result.checkpoints[-1].directory


@functools.cache
def trained(architecture: str, kind: str = "lora") -> Trained:
    root = Path(mkdtemp(prefix="afina-test-")) / "run"
    changes: dict[str, Any] = {"epochs": 1, "validation": None}
    if kind != "lora":
        changes |= {"tune": TuneSpec("full"), "optimizer": OptimizerSpec(2e-3, 0, 2)}
    else:
        changes |= {"optimizer": OptimizerSpec(3e-2, 0, 2)}
    spec = make_run(root, rows=8, architecture=architecture, lora=adapters(architecture), **changes)
    result = run_directory(root)
    assert result is not None
    return Trained(root, spec, result)


@functools.cache
def adapters(architecture: str) -> LoraSpec:
    from tests.tiny import make_tiny_model

    folder = Path(mkdtemp(prefix="afina-test-"))
    make_tiny_model(folder, architecture=architecture)
    return LoraSpec(rank=4, alpha=8.0, target_modules=lora_targets(load_base(folder, "fp32").model))


def said_by(model: Any, made: Trained) -> list[list[float]]:
    """The log-probabilities of what the trainer continued with, by any network of transformers."""
    found = []
    for row in made.result.parity:
        ids = torch.tensor([[*row.prompt_ids, *row.ids]])
        with torch.no_grad():
            logs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), -1)
        logs = logs[len(row.prompt_ids) - 1 :]
        found.append([float(logs[place, token]) for place, token in enumerate(row.ids)])
    return found


def assert_says_the_same(found: list[list[float]], made: Trained) -> None:
    assert len(found) == 3
    for logs, row in zip(found, made.result.parity, strict=True):
        assert logs == pytest.approx(list(row.logprobs), abs=WITHIN)


def transformers_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def of_each(*architectures: str) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("architecture", architectures)


@of_each(*ARCHITECTURES)
def test_a_run_learns_and_what_it_learned_changes_what_the_base_says(architecture: str) -> None:
    made = trained(architecture)
    losses = [e.data["train_loss"] for e in read_events(made.root) if e.kind == "step"]
    assert losses[-1] < losses[0]
    before = said_by(transformers_model(made.base), made)
    after = [list(row.logprobs) for row in made.result.parity]
    moved = max(abs(a - b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True))  # fmt: skip
    assert moved > 1e3 * WITHIN


@of_each(*ARCHITECTURES)
def test_peft_says_what_the_trainer_said(architecture: str) -> None:
    from peft import PeftModel

    made = trained(architecture)
    judge = PeftModel.from_pretrained(transformers_model(made.base), made.folder).eval()
    assert_says_the_same(said_by(judge, made), made)


@of_each(*ARCHITECTURES)
def test_the_merged_folder_says_what_the_trainer_said(architecture: str, tmp_path: Path) -> None:
    made = trained(architecture)
    merge(made.base, made.folder, tmp_path / "merged")
    assert_says_the_same(said_by(transformers_model(tmp_path / "merged"), made), made)


@of_each(*ARCHITECTURES)
def test_the_engine_says_what_the_trainer_said(architecture: str, tmp_path: Path) -> None:
    made = trained(architecture)
    settings, manifest = published(made, tmp_path, "lora")
    lane = make_lane(settings.models / made.spec.base.id)
    load_adapter(settings, lane, manifest)
    assert_engine_says_the_same(lane, made, manifest)


@of_each("mixtral", "gemma3")
def test_whole_weights_merged_and_in_the_engine_say_what_the_trainer_said(
    architecture: str, tmp_path: Path
) -> None:
    made = trained(architecture, "full")
    settings, manifest = published(made, tmp_path, "full")
    library = Library(settings, Journal(settings.journal), ManualClock())
    own = library.load_own(library.load_lane(made.spec.base.id), manifest)
    assert_engine_says_the_same(own.lane, made, None)
    merge(made.base, made.folder, tmp_path / "merged")
    assert_says_the_same(said_by(transformers_model(tmp_path / "merged"), made), made)


def published(made: Trained, data: Path, kind: Any) -> tuple[Settings, str]:
    """A data directory in which the base and the tune stand."""
    engine = EngineSettings(precision="fp32", cache_tokens=2048, threads=1)
    settings = Settings.load(data=data / "data", engine=engine)
    settings.models.mkdir(parents=True)
    (settings.models / made.spec.base.id).symlink_to(made.base)
    files = {n: put_blob(settings, (made.folder / n).read_bytes()) for n in FILES_OF[kind]}
    base = made.spec.base
    manifest = Manifest(kind, base.id, base.sha256, files, "t" * 64, "d" * 64)
    return settings, put_blob(settings, manifest.to_bytes())


def assert_engine_says_the_same(lane: Any, made: Trained, adapter: str | None) -> None:
    asked = [
        Asked(list(row.prompt_ids), len(row.ids), adapter, forced=list(row.ids))
        for row in made.result.parity
    ]
    ask_all(lane, asked)
    found = []
    for one, row in zip(asked, made.result.parity, strict=True):
        logs = torch.log_softmax(torch.stack(one.logits), -1)
        found.append([float(logs[place, token]) for place, token in enumerate(row.ids)])
    assert_says_the_same(found, made)


@pytest.mark.parametrize(
    "architecture",
    [
        a if a in ("phi", "mixtral") else pytest.param(a, marks=pytest.mark.slow)
        for a in ARCHITECTURES
    ],
)
def test_the_probe_admits_it(architecture: str) -> None:
    made = trained(architecture)
    found = probe(made.base)
    assert found.refusal is None
    assert set(found.capabilities["lora_targets"]) == set(made.spec.lora.target_modules)
