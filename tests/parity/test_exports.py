"""What leaves afina computes elsewhere what it computed here: PEFT's files and merged models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_run import make_run

from afina.domain.runs import RunPaths
from afina.errors import InvalidRequest
from afina.model.base import load_base
from afina.model.merge import merge
from afina.model.peft_files import CONFIG, WEIGHTS, read_adapter
from afina.training.given import read_spec
from afina.training.network import TrainedNetwork
from afina.training.run import run_directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports") / "run"
    make_run(root, rows=6)
    run_directory(root)
    return root


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(3, 250, (1, 40), generator=torch.Generator().manual_seed(5))


def adapter_folder(root: Path) -> Path:
    folders = sorted(RunPaths(root).checkpoints.iterdir())
    return folders[-1]


def ours(root: Path, ids: torch.Tensor) -> torch.Tensor:
    """Logits of the trainer's network with the published adapter."""
    from afina.model.packed import Masks, PackedContext, group_spans

    spec = read_spec(RunPaths(root))
    network = TrainedNetwork(load_base(Path(spec.base.path), "fp32"), spec.lora, seed=0)
    folder = adapter_folder(root)
    network.adapter.load_published(read_adapter(folder / CONFIG, folder / WEIGHTS)[1])
    tokens = ids.shape[1]
    context = PackedContext(tokens, group_spans([(0, tokens)], tokens), Masks())
    with torch.no_grad():
        out = network.model(
            input_ids=ids,
            position_ids=torch.arange(tokens)[None],
            use_cache=False,
            afina_ctx=context,
        )
    logits: torch.Tensor = out.logits
    return logits


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_the_adapter_loads_in_peft_with_the_same_logits(run: Path, ids: torch.Tensor) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec = read_spec(RunPaths(run))
    base = AutoModelForCausalLM.from_pretrained(spec.base.path)
    plain = base(ids).logits.detach()
    tuned = PeftModel.from_pretrained(base, adapter_folder(run))
    with torch.no_grad():
        found = tuned(input_ids=ids).logits
    expected = ours(run, ids)
    assert float((expected - plain).abs().max()) > 0.05
    assert float((found - expected).abs().max()) < 1e-5


def test_the_adapter_loads_in_transformers_with_the_same_logits(
    run: Path, ids: torch.Tensor
) -> None:
    from transformers import AutoModelForCausalLM

    spec = read_spec(RunPaths(run))
    model = AutoModelForCausalLM.from_pretrained(spec.base.path)
    model.load_adapter(str(adapter_folder(run)))
    with torch.no_grad():
        found = model(ids).logits
    assert float((found - ours(run, ids)).abs().max()) < 1e-5


def test_the_merged_model_loads_in_transformers_with_the_same_logits(
    run: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = read_spec(RunPaths(run))
    merge(Path(spec.base.path), adapter_folder(run), tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        found = model(ids).logits
    assert float((found - ours(run, ids)).abs().max()) < 1e-5
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert not (tmp_path / "merged" / "afina.json").exists()


def test_a_folder_with_something_in_it_is_not_written_to(run: Path, tmp_path: Path) -> None:
    spec = read_spec(RunPaths(run))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidRequest, match="not empty"):
        merge(Path(spec.base.path), adapter_folder(run), tmp_path)
