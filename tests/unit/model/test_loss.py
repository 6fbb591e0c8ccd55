"""The loss of a bin against torch's cross entropy in double precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from afina.model.loss import summed_loss

ROWS, WORDS = 75, 301


def problem(scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs and weights of a head, targets, and weights of which some are padding's 0."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, 16, generator=generator, dtype=torch.float64)
    head = scale * torch.randn(WORDS, 16, generator=generator, dtype=torch.float64) / 4
    targets = torch.randint(0, WORDS, (ROWS,), generator=generator)
    weights = torch.full((ROWS,), 1 / 60)
    weights[60:] = 0
    return x, head, targets, weights


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("scale", [3.0, 400.0])
def test_loss_and_gradient_are_those_of_cross_entropy(capped: bool, scale: float) -> None:
    x64, head, targets, weights = problem(scale)

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        made = functional.linear(x, head.to(x.dtype)).unsqueeze(0).view(ROWS, WORDS)
        return 30 * torch.tanh(made / 30) if capped else made

    judged = x64.clone().requires_grad_()
    losses = functional.cross_entropy(logits_of(judged), targets, reduction="none")
    (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
    x = x64.float().requires_grad_()
    loss, right, of_rows = summed_loss(logits_of(x), targets, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(of_rows.double(), losses.detach(), rtol=1e-5, atol=1e-5)
    wanted = float((losses.detach() * weights).sum())
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-6)
    assert x.grad is not None
    assert judged.grad is not None
    difference = (x.grad.double() - judged.grad).norm() / judged.grad.norm()
    assert float(difference) < 1e-6
    chosen = logits_of(x64).argmax(-1) == targets
    assert float(right) == pytest.approx(float((chosen * weights).sum()))


def test_of_equal_logits_the_first_word_is_chosen() -> None:
    logits = torch.zeros(3, 8)
    logits[:, [2, 5]] = 1.0
    targets = torch.tensor([2, 5, 0])
    _, right, losses = summed_loss(logits, targets, torch.ones(3))
    assert float(right) == 1
    assert torch.allclose(losses, functional.cross_entropy(logits, targets, reduction="none"))


def test_logits_without_a_gradient_stay_as_they_are() -> None:
    logits = torch.randn(40, 9)
    before = logits.clone()
    summed_loss(logits, torch.zeros(40, dtype=torch.int64), torch.ones(40))
    assert torch.equal(logits, before)


def test_a_number_that_is_not_finite_shows_in_the_loss() -> None:
    logits = torch.randn(4, 9)
    logits[2, 3] = float("nan")
    loss, _, _ = summed_loss(logits, torch.zeros(4, dtype=torch.int64), torch.ones(4))
    assert not torch.isfinite(loss)
