"""Tunes with weights of their own answer as transformers does with the same weights."""

from __future__ import annotations

import random
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine_rig import Asked, ask_all, make_data, put_own

from afina.domain.clock import ManualClock
from afina.domain.manifests import OWN_WEIGHTS, Manifest, TuneKind, blob_path
from afina.model.own_weights import read_weights
from afina.serving.journal import Journal
from afina.serving.library import Library
from afina.serving.memory import give_back

CASES: list[tuple[TuneKind, tuple[str, ...]]] = [
    ("full", ("",)),
    ("blocks", ("model.layers.1.",)),
    ("blocks", ("model.layers.1.", "model.norm.", "lm_head.")),
]


def judge(settings: Any, record: Any, sha256: str) -> Any:
    from transformers import AutoModelForCausalLM

    folder = settings.models / record.id
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    manifest = Manifest.from_bytes(blob_path(settings.blobs, sha256).read_bytes())
    weights = read_weights(blob_path(settings.blobs, manifest.files[OWN_WEIGHTS]))
    if "lm_head.weight" in weights and "model.embed_tokens.weight" not in weights:
        model.lm_head.weight = torch.nn.Parameter(weights["lm_head.weight"].float())
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor.float()
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_own_weights_answer_as_transformers_and_leave_the_base_alone(
    tmp_path: Path, tied: bool
) -> None:
    settings, record = make_data(tmp_path, tie_word_embeddings=tied)
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    asked = [Asked(random.Random(n).choices(range(3, 250), k=n), 6) for n in (5, 40, 70)]
    ask_all(base, asked)
    for kind, wanted in CASES:
        sha256 = put_own(settings, record, kind, 1, wanted)
        own = library.load_own(base, sha256)
        assert own.lane.runner.is_flat
        model = judge(settings, record, sha256)
        tuned = [Asked(one.ids, 6) for one in asked]
        ask_all(own.lane, tuned)
        for one, before in zip(tuned, asked, strict=True):
            with torch.inference_mode():
                found = model(torch.tensor([one.ids + one.tokens]), use_cache=False).logits[0]
            wanted_logits = found[len(one.ids) - 1 : -1]
            ours = torch.stack(one.logits)
            assert float((ours - wanted_logits).abs().max() / wanted_logits.abs().max()) < 5e-6
            assert not torch.allclose(ours, torch.stack(before.logits), atol=1e-3)
    again = [Asked(one.ids, 6) for one in asked]
    ask_all(base, again)
    for one, before in zip(again, asked, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(before.logits))


def test_a_tune_of_few_blocks_takes_few_bytes(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    part = library.load_own(base, put_own(settings, record, "blocks", 1, ("model.layers.1.",)))
    whole = library.load_own(base, put_own(settings, record, "full", 1, ("",)))
    cache = part.lane.runner.cache_bytes
    assert 2 * (part.size - cache) < whole.size - cache


@pytest.mark.parametrize("kind", ["blocks", "full"])
def test_a_tune_that_is_let_go_of_leaves_nothing_in_memory(tmp_path: Path, kind: TuneKind) -> None:
    settings, record = make_data(tmp_path)
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    wanted = {"blocks": ("model.layers.1.",), "full": ("",)}[kind]
    own = library.load_own(base, put_own(settings, record, kind, 1, wanted))
    ask_all(own.lane, [Asked([5, 6, 7], 4)])
    left = weakref.ref(own.lane.runner)
    del own
    give_back()
    assert left() is None


def test_what_a_tune_is_counted_with_holds_its_cache(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path)
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    own = library.load_own(base, put_own(settings, record, "blocks", 1, ("model.layers.1.",)))
    runner = own.lane.runner
    assert own.size > runner.cache_bytes > 0
    assert 4 * runner.cache_bytes == base.runner.cache_bytes


def test_no_file_of_weights_stays_in_memory(tmp_path: Path) -> None:
    settings, record = make_data(tmp_path, "bf16")
    library = Library(settings, Journal(settings.journal), ManualClock())
    base = library.load_lane(record.id)
    if not base.runner.is_native:
        pytest.skip("products keep the weights of the file where no kernels pack them")
    own = library.load_own(base, put_own(settings, record, "blocks", 1, ("model.layers.1.",)))
    ask_all(own.lane, [Asked([5, 6, 7], 4)])
    assert str(settings.data) not in Path("/proc/self/maps").read_text()
