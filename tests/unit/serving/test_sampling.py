"""A token depends on its row, seed, choice and position alone, and has the right distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from afina.model.kernels import sampling as kernels
from afina.model.kernels.argmax import argmax
from afina.model.kernels.library import library
from afina.serving.penalties import Bias
from afina.serving.sampling import Choosing, choose, draw_by_torch, logprobs

with_kernels = pytest.mark.skipif(
    library() is None, reason="no C compiler, or a processor without bf16 products"
)


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
    told = logprobs(logits, [5, 6, 7], [0, 2, 20], [0, 1, 2])
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


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def logits_like(kind: str, count: int, width: int) -> torch.Tensor:
    """Rows whose mass stands in a few tokens, in half of them, in all alike, or nowhere else than
    where a grammar lets it be."""
    source = torch.Generator().manual_seed(width)
    noise = torch.randn(count, width, generator=source)
    if kind == "flat":
        return noise * 0.1
    if kind == "equal":
        return torch.zeros(count, width) - 3
    if kind == "loud":
        return noise * 40
    if kind == "masked":
        return noise.masked_fill(torch.rand(count, width, generator=source) < 0.9, -math.inf)
    peaks = torch.randint(width, (count, 5), generator=source)
    return (noise * 2.2).scatter(1, peaks, 12.0)


@with_kernels
@pytest.mark.parametrize("kind", ["peaked", "flat", "equal", "loud", "masked"])
@pytest.mark.parametrize("width", [5, 255, 256, 257, 3000, 49_152])
def test_kernels_draw_what_torch_draws(kind: str, width: int) -> None:
    count = 300 if width < 10_000 else 40
    logits = logits_like(kind, count, width).bfloat16()
    logits[:, 0] = 0.5  # no row without a number
    how = [
        Choosing(i, i % 3, 7 * i, (1.0, 0.3, 1.7, 30.0)[i % 4], (1.0, 0.9, 0.5, 0.97, 0.0)[i % 5])
        for i in range(count)
    ]
    ways = [kernels.Draw(row.key, row.temperature, row.top_p) for row in how]
    expected = draw_by_torch(logits, how)
    assert kernels.draw(logits, range(count), ways) == expected
    assert kernels.draw(logits.float(), range(count), ways) == expected
    assert choose(logits, how) == expected


@with_kernels
def test_a_draw_is_the_same_with_any_threads_and_places(threads: None) -> None:
    logits = logits_like("peaked", 33, 5000).bfloat16()
    how = [Choosing(3, 0, i, 0.9, 0.8) for i in range(33)]
    ways = [kernels.Draw(row.key, row.temperature, row.top_p) for row in how]
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(kernels.draw(logits, range(33), ways))
    assert found[0] == found[1] == found[2]
    some = [30, 4, 4, 11]
    assert kernels.draw(logits, some, [ways[i] for i in some]) == [found[0][i] for i in some]


@with_kernels
def test_what_is_not_a_number_still_gives_a_token_of_the_vocabulary() -> None:
    logits = torch.zeros(4, 300)
    logits[0], logits[1], logits[2] = math.nan, -math.inf, math.inf
    logits[3, 7] = math.nan
    for top_p in (1.0, 0.5):
        ways = [kernels.Draw(i << 60, 1.0, top_p) for i in range(4)]
        assert all(0 <= token < 300 for token in kernels.draw(logits, range(4), ways))


@with_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_kernels_list_what_torch_lists_and_of_equals_the_first(dtype: torch.dtype) -> None:
    logits = logits_like("peaked", 12, 3001).to(dtype)
    logits[5] = torch.arange(3001) / 300  # each one better than all before it
    scores = torch.log_softmax(logits.float(), -1)
    tokens = [(251 * i) % 3001 for i in range(12)]
    for at, found in enumerate(kernels.listed(logits, range(12), tokens, 20)):
        order = scores[at].sort(descending=True, stable=True)
        assert found.ids == order.indices[:20].tolist()
        assert found.logprobs == pytest.approx(order.values[:20].tolist(), abs=1e-5)
        assert found.chosen == pytest.approx(float(scores[at, tokens[at]]), abs=1e-5)


@with_kernels
def test_places_and_tokens_that_are_none_are_refused() -> None:
    logits, way = torch.zeros(2, 9), kernels.Draw(0, 1.0, 1.0)
    for places in ([2], [-1]):
        with pytest.raises(ValueError, match="place"):
            kernels.draw(logits, places, [way])
    for token, most in ((9, 0), (-1, 0), (0, 10)):
        with pytest.raises(ValueError, match="token"):
            kernels.listed(logits, [0], [token], most)


def test_company_of_another_kind_changes_no_token() -> None:
    """Greedy, drawn, forced and reshaped rows in one step, each as it is alone."""
    logits = logits_like("peaked", 12, 700).bfloat16()

    def how(i: int) -> Choosing:
        reshaping = Bias({3: 5.0, 600: -2.0}) if i % 2 else None
        forced = 9 if i % 5 == 4 else None
        return Choosing(1, 0, i, (0.0, 0.8, 1.0)[i % 3], (0.7, 1.0)[i % 2], forced, reshaping)

    together = choose(logits, [how(i) for i in range(12)])
    assert together == [choose(logits[i : i + 1], [how(i)])[0] for i in range(12)]
    assert together[4] == together[9] == 9
