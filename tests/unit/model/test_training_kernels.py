"""The kernels of training compute what they say, to no more than their rounding, over odd shapes and
with any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from tests.kernel_ways import WAYS, kernels_made
from torch.nn import functional

from afina.model.folding import Group, Span, group_spans
from afina.model.grids import Heads
from afina.model.kernels.attention import Attended, Jobs, attend, attend_back
from afina.model.kernels.linear import Low, Matrix, add_gradient, linear
from afina.model.kernels.losses import row_losses
from afina.model.kernels.passes import (
    add_scale_gradient,
    gate_forward,
    norm_backward,
    norm_forward,
    rotate_heads,
)
from afina.model.own_products import OwnProduct, own_product

pytestmark = pytest.mark.usefixtures("_threads", "_way")
HALF = 2**-8
"""What rounding to bf16 once may change, in shares."""


@pytest.fixture(params=WAYS)
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    with kernels_made(request.param):
        yield


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16()


def close(found: torch.Tensor, exact: torch.Tensor, share: float = HALF) -> bool:
    return bool((found.double() - exact).norm() <= share * exact.norm())


def same_with_any_threads(made: Callable[[], list[torch.Tensor]]) -> list[torch.Tensor]:
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(made())
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))
    return results[0]


@pytest.mark.parametrize(
    ("count", "inputs", "outputs", "rank"),
    [
        (1, 2, 1, 2),
        (37, 64, 96, 16),
        (13, 130, 50, 6),
        (29, 576, 17, 0),
        (5, 34, 33, 2),
        (35, 4098, 66, 40),
        (35, 8194, 66, 40),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_linear_layer_adds_its_low_rank_term_and_the_residual_before_rounding(
    count: int, inputs: int, outputs: int, rank: int, turned: bool
) -> None:
    x, weight, beside = drawn(count, inputs), drawn(outputs, inputs, seed=1), drawn(count, outputs)
    low_x, b = drawn(count, rank, seed=2), drawn(outputs, rank, seed=3)
    exact = x.double() @ weight.double().T + beside.double()
    exact += 2 * (low_x.double() @ b.double().T)

    def laid(matrix: torch.Tensor) -> Matrix:
        return Matrix(matrix.T.contiguous(), turned=True) if turned else Matrix(matrix)

    def made() -> list[torch.Tensor]:
        out = x.new_empty(count, outputs)
        low = Low(low_x, laid(b), 2.0) if rank else None
        linear(x, laid(weight), out, low=low, beside=beside)
        return [out]

    assert close(same_with_any_threads(made)[0], exact)


def test_a_linear_layer_multiplies_its_outputs_before_a_bias_is_added() -> None:
    x, weight, bias = drawn(9, 64), drawn(41, 64, seed=1), drawn(1, 41, seed=2)
    gain = torch.linspace(-2, 2, 41)
    out = x.new_empty(9, 41)
    linear(x, Matrix(weight), out, beside=bias, gain=gain)
    assert close(out, gain.double() * (x.double() @ weight.double().T) + bias.double())
    with pytest.raises(ValueError, match="wanted"):
        linear(x, Matrix(weight), out, gain=gain[:40])


def test_a_linear_layer_reads_and_writes_columns_of_larger_rows_and_adds_a_bias_to_all() -> None:
    x, weight, bias = drawn(9, 100)[:, 10:74], drawn(40, 64, seed=1), drawn(1, 40, seed=2)
    out = torch.zeros(9, 64).bfloat16()
    linear(x, Matrix(weight), out[:, 8:48], beside=bias)
    assert close(out[:, 8:48], x.double() @ weight.double().T + bias.double())
    assert not out[:, :8].any()
    assert not out[:, 48:].any()


@pytest.mark.parametrize(
    ("count", "xs", "ys"),
    [
        (1, 1, 1),
        (37, 16, 96),
        (100, 48, 33),
        (13, 5, 7),
        (21, 160, 70),
        (45, 300, 200),
        (44, 200, 300),
    ],
)
def test_gradients_of_low_rank_matrices_are_summed_in_fp32(count: int, xs: int, ys: int) -> None:
    x, y = drawn(count, xs), drawn(count, ys, seed=1)
    exact = 1 + 0.5 * (x.double().T @ y.double())

    def made() -> list[torch.Tensor]:
        one, two = torch.ones(xs, ys), torch.ones(ys, xs)
        add_gradient(x, y, one, scale=0.5)
        add_gradient(x, y, two, scale=0.5, turned=True)
        return [one, two]

    one, two = same_with_any_threads(made)
    assert torch.equal(one, two.T)
    assert close(one, exact, 1e-6)


@pytest.mark.parametrize(("count", "width"), [(1, 1), (5, 33), (12, 576)])
def test_a_norm_and_its_gradient(count: int, width: int) -> None:
    x, weight, grad = drawn(count, width), drawn(width, seed=1), drawn(count, width, seed=2)
    beside = drawn(count, width, seed=3)
    given, scale = x.double().requires_grad_(), weight.double().requires_grad_()
    exact = scale * given / (given.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    exact.backward(grad.double())  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert scale.grad is not None

    def made() -> list[torch.Tensor]:
        out, inverse = norm_forward(x, weight, 1e-5)
        of_scale = torch.ones(width)
        add_scale_gradient(of_scale, grad, x, inverse)
        return [out, norm_backward(grad.clone(), x, weight, inverse, beside), of_scale]

    out, of_x, of_scale = same_with_any_threads(made)
    assert close(out, exact.detach())
    assert close(of_scale, 1 + scale.grad, 1e-6)
    assert close(of_x, given.grad + beside.double())


@pytest.mark.parametrize(("count", "width"), [(1, 1), (5, 33), (12, 96)])
def test_a_gate_opens(count: int, width: int) -> None:
    both = drawn(count, 2 * width) * 4
    both[0, 0] = -100.0 if width > 1 else 3.0
    gate, up = both.double().chunk(2, -1)
    assert close(same_with_any_threads(lambda: [gate_forward(both)])[0], functional.silu(gate) * up)


def products(inputs: int, outs: list[int], rank: int = 4, bias: bool = False) -> OwnProduct:
    """Layers side by side, with B that are views of a block diagonal."""
    ranks = rank * len(outs)
    a, b = drawn(ranks, inputs, seed=5), torch.zeros(sum(outs), ranks).bfloat16()
    parts, at = [], 0
    for place, size in enumerate(outs):
        one = drawn(size, rank, seed=6 + place)
        b[at : at + size, place * rank : (place + 1) * rank] = one
        parts.append((one, torch.zeros(size, rank)))
        at += size
    frozen = (drawn(sum(outs), inputs, seed=9), drawn(sum(outs), seed=10) if bias else None)
    made = own_product(frozen, (a, torch.zeros(ranks, inputs)), b, parts, 2.0)
    assert made is not None
    return made


def of_product(made: OwnProduct, x: torch.Tensor) -> torch.Tensor:
    """What layers give in fp64; x Aᵀ is rounded, as it is kept."""
    low = (x @ made.a.double().T).detach().bfloat16().double() - (x @ made.a.double().T).detach()
    out = x @ made.weight.double().T
    out = out + 2 * ((x @ made.a.double().T + low) @ made.b.double().T)
    return out if made.bias is None else out + made.bias.double()


@pytest.mark.parametrize("outs", [[96, 32, 32], [64, 64], [50], [6, 10]])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_side_by_side_and_their_gradients(outs: list[int], bias: bool) -> None:
    made, x = products(62, outs, bias=bias), drawn(37, 62)
    beside, grad = drawn(37, sum(outs), seed=1), drawn(37, sum(outs), seed=2)
    given = x.double().requires_grad_()
    exact = of_product(made, given) + beside.double()
    exact.backward(grad.double())  # type: ignore[no-untyped-call]
    assert given.grad is not None
    low_grad = 2 * grad.double() @ made.b.double()

    def computed() -> list[torch.Tensor]:
        for sums in (made.grad_a, *(part.grad_b for part in made.parts)):
            sums.zero_()
        out, low = made.forward(x, beside)
        of_low, of_x = made.backward(grad)
        made.add_gradients(grad, of_low, x, low)
        return [out, low, of_low, of_x, made.grad_a.clone(), made.parts[-1].grad_b.clone()]

    out, low, of_low, of_x, of_a, of_b = same_with_any_threads(computed)
    assert close(out, exact.detach(), HALF if not bias else 2 * HALF)
    assert close(of_low, low_grad)
    assert close(of_x, given.grad)
    assert close(of_a, of_low.double().T @ x.double(), 1e-6)
    last = made.parts[-1]
    of_last = grad[:, last.column :].double().T @ low[:, last.rank :].double()
    assert close(of_b, 2 * of_last, 1e-6)
    assert torch.equal(made.backward(grad, wanted=False)[0], of_low)


def test_the_gradient_of_a_product_behind_a_norm_needs_no_norm() -> None:
    made, x, weight = products(62, [96, 32]), drawn(37, 62), drawn(62, seed=1)
    grad, low, of_low = drawn(37, 128, seed=2), drawn(37, 8, seed=3), drawn(37, 8, seed=4)
    _, inverse = norm_forward(x, weight, 1e-5)
    exact = of_low.double().T @ (weight.double() * inverse.double()[:, None] * x.double())

    def computed() -> list[torch.Tensor]:
        made.grad_a.zero_()
        made.add_gradients(grad, of_low, x, low, (weight, inverse))
        return [made.grad_a.clone()]

    assert close(same_with_any_threads(computed)[0], exact)


def test_a_product_opens_the_gate_and_takes_it_back() -> None:
    made, x = products(40, [48, 48]), drawn(29, 40)
    down, grad = products(48, [34]), drawn(29, 34, seed=3)
    assert made.can_gate
    assert not products(40, [40, 40]).can_gate
    out, low = made.forward(x)

    def computed() -> list[torch.Tensor]:
        both, of_low, inner = made.forward_gated(x)
        of_both = both.clone()
        return [both, of_low, inner, *down.backward(grad, both=of_both), of_both]

    both, same_low, inner, _, again, of_both = same_with_any_threads(computed)
    assert torch.equal(low, same_low)
    assert close(both, out.double())
    given = both.double().requires_grad_()
    gate, up = given.chunk(2, -1)
    exact = functional.silu(gate) * up
    assert close(inner, exact.detach())
    assert close(again, exact.detach())
    exact.backward(down.backward(grad)[1].double())  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert close(of_both, given.grad, 2 * HALF)


@pytest.mark.parametrize("size", [2, 6, 64, 96])
def test_heads_turn_and_turn_back_and_others_stay(size: int) -> None:
    x = drawn(7, 5 * size)
    angles = torch.rand(7, size // 2, generator=torch.Generator().manual_seed(1)).repeat(1, 2) * 6
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    heads = x.double().view(7, 5, size)[:, :3]
    low, high = heads.chunk(2, -1)
    wide = (cos.double()[:, None], sin.double()[:, None])
    exact = heads * wide[0] + torch.cat((-high, low), -1) * wide[1]
    back = heads * wide[0] + torch.cat((high, -low), -1) * wide[1]
    for wanted, backwards in ((exact, False), (back, True)):
        found = x.clone()
        rotate_heads(found, 3, cos, sin, back=backwards)
        assert close(found.view(7, 5, size)[:, :3], wanted)
        assert torch.equal(found[:, 3 * size :], x[:, 3 * size :])


def bins(lengths: list[int], before: int) -> tuple[tuple[Group, ...], int]:
    """Groups of chats behind a shared beginning, and a place behind them that is nobody's."""
    prefix: Span = (0, before)
    spans, at = [], before
    for length in lengths:
        spans.append((at, length))
        at += length
    if not before:
        return group_spans(spans, None), at
    return (*group_spans(spans, None, prefix), *group_spans([prefix], None)), at


def exact_attention(
    x: torch.Tensor, groups: tuple[Group, ...], heads: Heads, window: int | None, scale: float
) -> torch.Tensor:
    out = torch.zeros(len(x), heads.queries, heads.size, dtype=torch.float64)
    repeats = heads.queries // heads.keys
    for group in groups:
        before = list(range(group.prefix[0], sum(group.prefix)))
        for start, tokens in group.spans:
            seen = [*before, *range(start, start + tokens)]
            q = x[start : start + tokens, : heads.queries]
            k, v = (
                x[seen, at : at + heads.keys].repeat_interleave(repeats, 1)
                for at in (heads.queries, heads.queries + heads.keys)
            )
            far = (torch.arange(tokens) + len(before))[:, None] - torch.arange(len(seen))[None]
            hidden = (far < 0) | (far >= (window or len(x)))
            scores = torch.einsum("qhd,khd->hqk", q, k) * scale
            chances = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            rows = torch.arange(start, start + tokens)
            out = out.index_put((rows,), torch.einsum("hqk,khd->qhd", chances, v))
    return out.view(len(x), -1)


@pytest.mark.parametrize(
    ("heads", "lengths", "before", "window"),
    [
        (Heads(9, 3, 64), [5, 33, 70, 1], 21, None),
        (Heads(3, 1, 32), [300, 40], 0, None),
        (Heads(4, 4, 32), [7, 9, 200], 3, None),
        (Heads(6, 2, 128), [50, 31], 17, 20),
        (Heads(2, 1, 32), [600, 20], 101, 300),
        (Heads(8, 2, 96), [64], 0, 5),
    ],
)
def test_attention_and_its_gradient_over_chats_that_share_a_beginning(
    heads: Heads, lengths: list[int], before: int, window: int | None
) -> None:
    groups, used = bins(lengths, before)
    qkv = drawn(used + 3, heads.all, heads.size)
    grad = drawn(used + 3, heads.queries * heads.size, seed=1)
    scale = heads.size**-0.5
    given = qkv.double().requires_grad_()
    exact = exact_attention(given, groups, heads, window, scale)
    exact.backward(grad.double())  # type: ignore[no-untyped-call]
    assert given.grad is not None
    jobs = Jobs.of(groups, window)

    def made() -> list[torch.Tensor]:
        flat = qkv.view(used + 3, -1)
        out, tops = attend(flat, jobs, heads, scale)
        return [out, attend_back(Attended(flat, out, tops), grad, jobs, heads, scale)]

    out, of_qkv = same_with_any_threads(made)
    assert close(out, exact.detach())
    of_qkv = of_qkv.view(qkv.shape)
    ends = (0, heads.queries, heads.queries + heads.keys, heads.all)
    for first, last in pairwise(ends):
        assert close(of_qkv[:, first:last], given.grad[:, first:last])
    assert not out[used:].any()
    assert not of_qkv[used:].any()


def test_a_bin_without_chats_gives_nothing() -> None:
    heads = Heads(2, 1, 32)
    out, _ = attend(drawn(4, 128), Jobs.of((), None), heads, 1.0)
    assert not out.any()


def test_what_a_kernel_cannot_read_is_refused() -> None:
    x = drawn(4, 64)
    with pytest.raises(ValueError, match="wanted 4 rows of 32"):
        linear(x, Matrix(drawn(32, 64)), torch.empty(4, 32))
    with pytest.raises(ValueError, match="even"):
        linear(drawn(4, 63), Matrix(drawn(32, 63)), x.new_empty(4, 32))
    with pytest.raises(ValueError, match="not 3"):
        linear(x, Matrix(drawn(32, 64)), x.new_empty(4, 32), beside=drawn(3, 32))
    with pytest.raises(ValueError, match="without gaps"):
        norm_forward(drawn(4, 64)[:, :32], drawn(32), 1e-5)
    with pytest.raises(ValueError, match="no kernel"):
        attend(drawn(4, 4 * 24), Jobs.of((), None), Heads(2, 1, 24), 1.0)


@pytest.mark.parametrize("size", [1, 33, 5000])
def test_a_loss_its_first_choices_and_its_gradient(size: int) -> None:
    logits = drawn(9, size) * 6
    logits[1] = 2.0  # all are the largest: the first of them is chosen
    targets = torch.arange(9) * 7 % size
    targets[1], targets[2] = size - 1, int(logits[2].argmax())
    weights = torch.rand(9, generator=torch.Generator().manual_seed(1))
    given = logits.double().requires_grad_()
    exact = functional.cross_entropy(given, targets, reduction="none")
    (exact * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None

    def made() -> list[torch.Tensor]:
        grad = logits.clone()
        losses, right = row_losses(grad, targets, weights, grad)
        assert torch.equal(losses, row_losses(logits, targets, weights, None)[0])
        return [losses, right, grad]

    losses, right, grad = same_with_any_threads(made)
    assert torch.allclose(losses.double(), exact.detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(right, logits.float().argmax(-1) == targets)
    assert close(grad, given.grad)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_makes_a_loss_that_is_none(number: float) -> None:
    logits = drawn(2, 100)
    logits[1, 40] = number
    losses, _ = row_losses(logits, torch.tensor([3, 5]), torch.ones(2), None)
    assert bool(losses[0].isfinite())
    assert not bool(losses[1].isfinite())


def test_a_target_outside_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of 10"):
        row_losses(drawn(1, 10), torch.tensor([10]), torch.ones(1), None)
