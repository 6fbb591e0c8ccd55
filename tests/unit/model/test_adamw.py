"""The optimiser's kernel moves weights as torch's fused one does, to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.kernel_ways import kernels_made
from torch.optim.adamw import adamw

from afina.model.kernels.adamw import Rates, can_move, move
from afina.model.kernels.library import HALVES, VECTORS, WIDE


@pytest.fixture(autouse=True, params=[HALVES, WIDE, VECTORS], ids=lambda way: way.name)
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    with kernels_made(request.param):
        yield
    torch.set_num_threads(before)


def drawn(size: int, seed: int, least: float = -4, most: float = 0) -> torch.Tensor:
    """Numbers of many sizes, both signs."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.empty(size).uniform_(least, most, generator=generator)
    return sizes * torch.randn(size, generator=generator)


def by_torch(
    weights: torch.Tensor,
    grads: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    rates: Rates,
) -> None:
    if rates.clip < 1:
        grads = grads * rates.clip
    beta1, beta2 = rates.betas
    adamw(
        [weights], [grads], [moments[0]], [moments[1]], [], [torch.tensor(rates.step - 1.0)],
        fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=rates.rate,
        weight_decay=rates.weight_decay, eps=rates.epsilon, maximize=False,
    )  # fmt: skip


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 16, 4096, 100_000])
def test_a_step_has_the_bits_of_torchs(size: int, threads: int, decay: float) -> None:
    torch.set_num_threads(threads)
    ours, theirs = ([drawn(size, 0), torch.zeros(size), torch.zeros(size)] for _ in range(2))
    for step in range(1, 9):
        rates = Rates(step, 1e-3 / step, (0.9, 0.999), 1e-8, decay, 0.3 if step % 2 else 1.0)
        assert can_move(ours[0], rates)
        grads = drawn(size, step, -9, 2)
        given = grads.clone()
        assert move(ours[0], given, (ours[1], ours[2]), rates)
        assert torch.equal(given, grads)
        by_torch(theirs[0], grads, (theirs[1], theirs[2]), rates)
        assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_weights_that_become_no_numbers_are_told() -> None:
    rates = Rates(1, 1e-3, (0.9, 0.999), 1e-8, 0.0, 1.0)
    for odd in (torch.nan, torch.inf, -torch.inf, 3.4e38):
        weights, grads = torch.ones(4096), torch.ones(4096)
        weights[777] = odd
        assert not move(weights, grads, (torch.zeros(4096), torch.zeros(4096)), rates), odd
    weights = torch.full((4096,), 3.38e38)
    assert move(weights, torch.ones(4096), (torch.zeros(4096), torch.zeros(4096)), rates)


def test_what_the_kernel_would_move_otherwise_is_left_to_torch() -> None:
    usual = Rates(1, 1e-3, (0.9, 0.999), 1e-8, 0.0, 1.0)
    assert not can_move(torch.ones(17), usual)
    assert not can_move(torch.ones(16).bfloat16(), usual)
    assert not can_move(torch.ones(16, 2)[:, 0], usual)
    assert not can_move(torch.ones(16), Rates(1, 1e-3, (0.4, 0.999), 1e-8, 0.0, 1.0))
    with pytest.raises(ValueError, match="wanted"):
        move(torch.ones(16), torch.ones(32), (torch.ones(16), torch.ones(16)), usual)
