"""A token depends on its row, seed, choice and position alone, and has the right distribution."""

from __future__ import annotations

import pytest
import torch

from afina.model.kernels.argmax import argmax
from afina.serving.sampling import Choosing, choose, logprobs


def rows(count: int, **how: float) -> list[Choosing]:
    return [Choosing(seed=7, choice=0, position=i, **how) for i in range(count)]  # type: ignore[arg-type]


def test_temperature_zero_is_the_best_token() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    assert choose(logits, rows(5, temperature=0.0)) == logits.argmax(-1).tolist()


def test_the_same_row_gives_the_same_token_in_any_company() -> None:
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(1))
    how = [Choosing(i % 3, i % 2, i, 0.7 + 0.1 * (i % 4), (1.0, 0.9)[i % 2]) for i in range(40)]
    together = choose(logits, how)
    alone = [choose(logits[i : i + 1], how[i : i + 1])[0] for i in range(40)]
    backwards = choose(logits.flip(0), how[::-1])[::-1]
    assert together == alone == backwards


def test_seed_choice_and_position_each_change_the_noise() -> None:
    keys = {Choosing(s, c, p).key for s in range(5) for c in range(5) for p in range(50)}
    assert len(keys) == 5 * 5 * 50


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.long
def test_tokens_are_drawn_with_the_softmax_as_their_distribution(temperature: float) -> None:
    # Over three blocks of the vocabulary, with most of the mass in a few tokens.
    logits = torch.full((1, 700), -4.0)
    logits[0, [3, 200, 300, 511, 699]] = torch.tensor([2.0, 1.0, 2.5, 0.0, 1.5])
    count = 40_000
    drawn = choose(logits.expand(count, -1), rows(count, temperature=temperature))
    expected = torch.softmax(logits[0] / temperature, -1) * count
    found = torch.bincount(torch.tensor(drawn), minlength=700).float()
    big = expected > 20
    chi2 = ((found - expected)[big] ** 2 / expected[big]).sum()
    degrees = int(big.sum())
    assert chi2 < degrees + 5 * (2 * degrees) ** 0.5
    assert abs(found[~big].sum() - expected[~big].sum()) < 5 * expected[~big].sum().clamp(1) ** 0.5


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    drawn = set(choose(logits.expand(3000, -1), rows(3000, temperature=1.0, top_p=0.75)))
    assert drawn == {0, 1}
    drawn = set(choose(logits.expand(3000, -1), rows(3000, temperature=1.0, top_p=0.81)))
    assert drawn == {0, 1, 2}
    assert set(choose(logits.expand(99, -1), rows(99, temperature=1.0, top_p=0.0))) == {0}


def test_top_p_reaches_beyond_the_first_candidates() -> None:
    logits = torch.zeros(1, 2000)
    drawn = choose(logits.expand(4000, -1), rows(4000, temperature=1.0, top_p=0.99))
    assert len(set(drawn)) > 1500


def test_forced_tokens_override_everything() -> None:
    logits = torch.zeros(2, 50)
    how = [Choosing(0, 0, 0, 1.0, forced=49), Choosing(0, 0, 0, 0.0, forced=3)]
    assert choose(logits, how) == [49, 3]


def test_logprobs_are_the_networks_own() -> None:
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(3))
    told = logprobs(logits, [5, 6, 7], [0, 2, 20])
    scores = torch.log_softmax(logits, -1)
    for row, (token, top) in enumerate(zip((5, 6, 7), (0, 2, 20), strict=True)):
        assert told[row].chosen == pytest.approx(float(scores[row, token]))
        best = scores[row].topk(top)
        assert told[row].ids == best.indices.tolist()
        assert told[row].logprobs == pytest.approx(best.values.tolist())


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 356, 4096])
def test_the_largest_logit_is_found_wherever_it_stands(width: int) -> None:
    source = torch.Generator().manual_seed(width)
    wide = torch.randn(9, width + 5, generator=source).bfloat16()
    wide[3], wide[4, 0], wide[5, :width] = -wide[3].abs() - 1, -0.0, -torch.inf
    logits = wide[:, :width]
    expected = logits.float().numpy().argmax(-1).tolist()
    found = argmax(logits)
    if found is not None:  # else this machine has no kernels
        assert found.tolist() == expected
    assert choose(logits, [Choosing(0, 0, 0, 0.0)] * 9) == expected
