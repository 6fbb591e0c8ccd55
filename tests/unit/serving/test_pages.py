"""Each sampled position and each prompt gets the terms of its own adapter and of no other."""

from __future__ import annotations

import torch

from afina.serving.layout import Span
from afina.serving.page_shapes import RANKS
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
