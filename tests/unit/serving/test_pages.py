"""Each sampled position and each prompt gets the terms of its own adapter and of no other."""

from __future__ import annotations

import pytest
import torch

from afina.serving.layout import Span
from afina.serving.page_shapes import RANKS, Shape, kernel_pages, scaled
from afina.serving.pages import Pages

SIZES = [64, 32, 32]
NAMES = ["q", "k", "v"]


def make_pages(capacity: int = 4) -> Pages:
    pages = Pages(torch.float32, capacity)
    pages.know(NAMES, 48, SIZES)
    pages.know(["o"], 64, [48])
    return pages


def pairs_of(
    seed: int, rank: int, names: list[str]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    source = torch.Generator().manual_seed(seed)
    sizes = {**dict(zip(NAMES, SIZES, strict=True)), "o": 48}
    return {
        name: (
            torch.randn(rank, 64 if name == "o" else 48, generator=source),
            torch.randn(sizes[name], rank, generator=source),
        )
        for name in names
    }


def put(pages: Pages, name: str, seed: int, rank: int, names: list[str] = NAMES) -> torch.Tensor:
    """Puts an adapter; the whole matrix that it adds to q, k and v together."""
    pairs = pairs_of(seed, rank, names)
    pages.put(name, rank, pages.write(pairs, rank))
    parts = [
        pairs[n][1] @ pairs[n][0] if n in pairs else torch.zeros(size, 48)
        for n, size in zip(NAMES, SIZES, strict=True)
    ]
    return torch.cat(parts)


def added(pages: Pages, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape[0], sum(SIZES))
    pages.add_to(out, "q", x)
    return out


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


def test_sampled_positions_and_prompts_get_their_own_terms_whatever_the_rank() -> None:
    pages = make_pages()
    a = put(pages, "a", 1, 8)
    b = put(pages, "b", 2, 40)  # three pages
    c = put(pages, "c", 3, 16, ["q", "v"])
    x = torch.randn(48, 48, generator=torch.Generator().manual_seed(9))
    owners = ["a", None, "b", "c", "b", None]
    pages.choose(owners, [Span(8, 27, "c"), Span(27, 32, "b")])
    wanted = torch.zeros(48, sum(SIZES))
    for row, name in enumerate(owners):
        if name is not None:
            wanted[row] = {"a": a, "b": b, "c": c}[name] @ x[row]
    wanted[8:27] = x[8:27] @ c.t()
    wanted[27:32] = x[27:32] @ b.t()
    assert_close(added(pages, x), wanted)


def test_a_position_has_the_same_bits_in_any_company() -> None:
    pages = make_pages()
    for seed, name in enumerate("abc"):
        put(pages, name, seed, 16)
    x = torch.randn(4, 48)
    pages.choose(["a", "b", "c", "a"], [])
    together = added(pages, x)
    for row, name in enumerate("abca"):
        pages.choose([name], [])
        assert torch.equal(added(pages, x[row : row + 1])[0], together[row])


def test_a_prompt_has_the_same_bits_in_any_company() -> None:
    pages = make_pages()
    for seed, name in enumerate("abc"):
        put(pages, name, seed, 24)
    x = torch.randn(200, 48)
    spans = [Span(3, 30, "a"), Span(30, 160, "b"), Span(160, 175, "c")]
    pages.choose(["c", None, "a"], spans)
    together = added(pages, x)
    assert not together[175:].any()
    for span in spans:
        pages.choose([], [span])
        alone = added(pages, x)
        part = slice(span.start, span.stop)
        assert torch.equal(alone[part], together[part])
        alone[part] = 0
        assert not alone.any()


def test_nothing_of_an_adapter_stays_in_pages_that_another_gets() -> None:
    pages = make_pages(capacity=1)
    put(pages, "loud", 1, RANKS)
    pages.discard("loud")
    quiet = put(pages, "quiet", 2, 4, ["v"])
    x = torch.randn(2, 48)
    pages.choose(["quiet", "quiet"], [])
    assert_close(added(pages, x), x @ quiet.t())
    out = torch.zeros(2, 48)
    pages.add_to(out, "o", torch.randn(2, 64))
    assert not out.any()


def test_pages_grow_and_keep_what_they_hold() -> None:
    pages = make_pages(capacity=1)
    wanted = {name: put(pages, name, seed, 24) for seed, name in enumerate("abcd")}
    x = torch.randn(4, 48)
    pages.choose(list("abcd"), [])
    assert_close(added(pages, x), torch.stack([wanted[n] @ x[i] for i, n in enumerate("abcd")]))


def test_memory_of_the_next_pages_is_taken_without_changing_a_number() -> None:
    pages = make_pages(capacity=2)
    pages.pack()
    put(pages, "mine", 1, 16)

    def held() -> list[torch.Tensor]:
        tables = pages.tables_of("q")
        assert tables is not None
        return [table[pages.pages_of("mine")[0]].clone() for table in tables]

    before = held()
    for rank in (16, 40, 900):
        pages.touch_next(rank)
    assert all(torch.equal(*pair) for pair in zip(before, held(), strict=True))
    assert all(float(part.abs().sum()) > 0 for part in before)


def packed(dtype: torch.dtype, capacity: int = 4) -> Pages:
    pages = Pages(dtype, capacity)
    pages.know(NAMES, 48, SIZES)
    pages.know(["o"], 64, [48])
    pages.know(["lm_head"], 48, [80])
    pages.pack()
    return pages


def tables_at(pages: Pages, name: str) -> list[torch.Tensor]:
    """All that the kernels would read of an adapter's pages."""
    found = []
    for first in ("q", "o", "lm_head"):
        tables = pages.tables_of(first)
        found += [] if tables is None else [t[pages.pages_of(name)].clone() for t in tables]
    return found


@pytest.mark.parametrize("rank", [1, 8, 16, 17, 40])
@pytest.mark.parametrize("scaling", [1.0, 0.25, 1.7])
def test_pages_are_packed_as_torch_would_lay_them_out(rank: int, scaling: float) -> None:
    pairs = {
        n: (a.bfloat16(), b.bfloat16())
        for n, (a, b) in pairs_of(rank, rank, ["q", "v", "o"]).items()
    }
    pages = packed(torch.bfloat16)
    pages.put("mine", rank, pages.write(pairs, rank, scaling))
    told = scaled(pairs, scaling, torch.bfloat16)
    expected: list[torch.Tensor] = []
    for names, shape in ((NAMES, Shape(48, tuple(SIZES))), (["o"], Shape(64, (48,)))):
        expected += kernel_pages(told, rank, names, shape, torch.bfloat16)
    found = tables_at(pages, "mine")
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_pages_hold_nothing_of_who_had_them_before(dtype: torch.dtype) -> None:
    """The head's too, which most adapters do not touch, and after the tables have grown."""
    pages = packed(dtype, capacity=1)
    source = torch.Generator().manual_seed(5)
    head = {
        "lm_head": (torch.randn(16, 48, generator=source), torch.randn(80, 16, generator=source))
    }
    loud = {**pairs_of(1, 16, [*NAMES, "o"]), **head}
    pages.put("loud", 16, pages.write(loud, 16))
    pages.put("user of the head", 16, pages.write(head, 16))  # its table stays in use
    before = tables_at(pages, "loud")
    pages.put("one more", 16, pages.write(loud, 16))
    assert all(torch.equal(*pair) for pair in zip(before, tables_at(pages, "loud"), strict=True))
    pages.discard("loud")
    pages.put("quiet", 16, pages.write(pairs_of(2, 16, ["k"]), 16))
    q_a, q_b, *others = tables_at(pages, "quiet")
    assert len(others) == 4
    assert float(q_a[:, 1].abs().min()) > 0
    assert not float(q_a[:, [0, 2]].abs().max())
    assert float(q_b[:, 4:6].abs().min()) > 0
    assert not float(q_b[:, :4].abs().max()) + float(q_b[:, 6:].abs().max())
    assert all(not float(part.abs().max()) for part in others)
