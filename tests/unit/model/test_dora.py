"""A DoRA layer in bf16: its product is rounded once where kernels compute it, and its gradients are
those of the exact layer."""

from __future__ import annotations

import pytest
import torch
from tests.kernel_ways import WAYS, kernels_made
from torch import nn

from afina.domain.runs import LoraSpec
from afina.model.dora import DoraAdapter
from afina.model.kernels.library import Way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_is_off_by_one_rounding_and_its_gradients_are_exact(way: Way, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(96, 64, bias=biased).bfloat16().requires_grad_(False)
    with kernels_made(way):
        adapter = DoraAdapter({"layer": base}, LoraSpec(rank=4, alpha=8.0), torch.bfloat16, 1)
        adapter.master_views("layer")[1].normal_(0, 0.1, generator=generator)
        lengths = adapter.lengths_in(adapter.masters, "layer")
        lengths.mul_(1.5 + 0.3 * torch.randn(lengths.shape, generator=generator))
        adapter.refresh()
        x, grad = (torch.randn(37, size, generator=generator).bfloat16() for size in (96, 64))
        given = x.clone().requires_grad_()
        out = adapter.linear(base, "layer", given)
        out.backward(grad)  # type: ignore[no-untyped-call]
    view = adapter.views["layer"]
    a, b, m = (t.double().requires_grad_() for t in (view.a, view.b, lengths))
    moved = base.weight.double() + 2 * b @ a
    plain = x.double() @ moved.T / moved.norm(dim=1).detach()
    exact = plain * m + (base.bias.double() if biased else 0.0)
    exact.backward(grad.double())
    roundings = 3 if biased else 1
    assert float((out.double() - exact).detach().norm()) <= roundings * 2**-9 * float(
        exact.detach().norm()
    )
    found = adapter.lengths_in(adapter.grads, "layer")
    for ours, theirs in ((found, m.grad), (view.grad_a, a.grad), (view.grad_b, b.grad)):
        assert theirs is not None
        assert float((ours.double() - theirs).norm()) <= 2**-6 * float(theirs.norm())
