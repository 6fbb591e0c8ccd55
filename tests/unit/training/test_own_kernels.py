"""A step by kernels of our own: as near to fp32 as torch's in bf16, and always the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from tests.tiny import make_tiny_model
from tests.tiny_run import make_run
from tests.unit.training.test_equality import SPEC, ListedRows, chats_with_beginnings

from afina.domain.foresight import Network as Numbers
from afina.domain.runs import Precision, TuneSpec
from afina.model.base import load_base
from afina.model.kernels import calls
from afina.model.kernels.library import library
from afina.model.packed import Masks
from afina.training.bins import plan_bins
from afina.training.network import Network, TrainedNetwork
from afina.training.own_network import FullNetwork, TopNetwork

pytestmark = [
    pytest.mark.skipif(library() is None, reason="no C compiler, or no bf16 products"),
    pytest.mark.long,
]
ROWS = chats_with_beginnings([(40, [7, 30, 12]), (0, [61, 5]), (19, [3, 3])], 1)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def made(folder: Path, precision: Precision) -> TrainedNetwork:
    network = TrainedNetwork(load_base(folder, precision), SPEC, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name in network.adapter.names:
        a, b = network.adapter.master_views(name)
        b.normal_(0, 0.1, generator=generator)
        for master in (a, b):
            master.copy_(master.bfloat16())
    network.adapter.refresh()
    return network


def learned(folder: Path, precision: Precision, layers: int) -> Network:
    """The top layers' own weights, or all of them, with norms and head."""
    base = load_base(folder, precision)
    if layers == base.layers:
        return FullNetwork(base)
    spec = make_run(
        Path(mkdtemp(dir=folder.parent)) / "run", rows=2, tune=TuneSpec("blocks", layers)
    )
    return TopNetwork(base, spec)


def gradient(network: Network, rows: ListedRows = ROWS) -> tuple[float, torch.Tensor]:
    network.adapter.grads.zero_()
    total = 0.0
    for one in plan_bins(rows, range(len(rows)), (128, 256)):
        loss, _, _ = network.loss(network.make_bin(rows, one, Masks()), rows.learned)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, network.adapter.grads.clone()


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_estimates_know_which_networks_go_by_kernels(architecture: str, tmp_path: Path) -> None:
    make_tiny_model(tmp_path, architecture=architecture, head_dim=32, dtype="bfloat16")
    config = json.loads((tmp_path / "config.json").read_text())
    for precision, element in (("bf16", 2), ("fp32", 4)):
        numbers = Numbers.of(config, 0, element)
        assert numbers is not None
        assert numbers.plain is made(tmp_path, precision).by_kernels  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
def test_a_gradient_is_as_near_to_fp32_as_torchs(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path, architecture=architecture, head_dim=32, dtype="bfloat16",
                    hidden_size=128)  # fmt: skip
    loss, exact = gradient(made(tmp_path, "fp32"))
    own = made(tmp_path, "bf16")
    assert own._exact
    ours_loss, ours = gradient(own)
    with monkeypatch.context() as patch:
        patch.setattr(calls, "library", lambda: None)
        plain = made(tmp_path, "bf16")
        assert not plain._exact
        theirs_loss, theirs = gradient(plain)
    assert not torch.equal(ours, theirs)
    assert float((ours - exact).norm()) <= 1.1 * float((theirs - exact).norm())
    assert ours_loss == pytest.approx(loss, abs=2 * abs(theirs_loss - loss) + 2**-8 * loss)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_gradient_of_own_weights_is_as_near_to_fp32_as_torchs(
    layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    make_tiny_model(folder, head_dim=32, dtype="bfloat16", hidden_size=128)
    _, exact = gradient(learned(folder, "fp32", layers))
    network = learned(folder, "bf16", layers)
    _, ours = gradient(network)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert torch.equal(gradient(network)[1], ours)
    with monkeypatch.context() as patch:
        patch.setattr(calls, "library", lambda: None)
        _, theirs = gradient(learned(folder, "bf16", layers))
    assert not torch.equal(ours, theirs)
    assert float((ours - exact).norm()) <= 1.1 * float((theirs - exact).norm())


def test_a_gradient_has_the_same_bits_with_any_threads_and_each_time(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, head_dim=32, dtype="bfloat16")
    network = made(tmp_path, "bf16")
    found = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        found.append(gradient(network))
    for loss, grads in found[1:]:
        assert loss == found[0][0]
        assert torch.equal(grads, found[0][1])


def test_a_bin_has_no_padding_and_a_row_the_same_loss_with_it(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, head_dim=32, dtype="bfloat16")
    network = made(tmp_path, "bf16")
    exact, exact_gradient = gradient(network)
    one = plan_bins(ROWS, range(len(ROWS)), (128, 256))[0]
    tensors = network.make_bin(ROWS, one, Masks())
    assert tensors.context.capacity == tensors.context.jobs(None).used
    assert len(tensors.keep_K) == tensors.learned
    network._exact = False
    assert len(network.make_bin(ROWS, one, Masks()).ids_1T[0]) in (128, 256)
    padded, padded_gradient = gradient(network)
    assert padded == pytest.approx(exact, rel=1e-6)
    assert float((padded_gradient - exact_gradient).norm() / exact_gradient.norm()) <= 1e-5
