"""Kernels of our own compute what torch computes, and their absence is no fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from tests.kernel_ways import WAYS, kernels_made

from afina.model.kernels import library as kernels
from afina.model.kernels import machine
from afina.model.kernels.library import HALVES, TILES, VECTORS, WIDE, Loaded
from afina.model.kernels.products import PackedWeight, packed_weight


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with kernels_made(request.param):
        yield


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator).bfloat16()


def packed(weight: torch.Tensor) -> PackedWeight:
    found = packed_weight(weight)
    assert found is not None
    return found


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 11, 12, 13, 29, 48])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 32), (58, 96), (576, 960)])
def test_a_product_is_off_by_no_more_than_its_rounding(
    count: int, inputs: int, outputs: int
) -> None:
    x, weight = rows(count, inputs), rows(outputs, inputs, 1)
    exact = x.double() @ weight.double().T
    found = packed(weight).multiply(x)
    assert found.shape == exact.shape
    room = 2**-8 * exact.abs() + 1e-5 * inputs
    assert bool(((found.double() - exact).abs() <= room).all())


@pytest.mark.usefixtures("way", "threads")
def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads() -> None:
    x, weight = rows(31, 576), packed(rows(960, 576, 1))
    together = weight.multiply(x)
    for count in (1, 2):
        torch.set_num_threads(count)
        for first, last in ((0, 1), (3, 5), (7, 31), (30, 31)):
            assert torch.equal(weight.multiply(x[first:last]), together[first:last])


@pytest.mark.usefixtures("way")
def test_what_is_added_is_added_before_rounding_and_may_be_where_the_result_goes() -> None:
    x, weight, beside = rows(5, 64), rows(96, 64, 1), rows(5, 96, 2)
    exact = x.double() @ weight.double().T + beside.double()
    product = packed(weight)
    found = product.multiply(x, beside)
    assert bool(((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all())
    product.multiply(x, beside, out=beside)
    assert torch.equal(beside, found)


@pytest.mark.usefixtures("way")
def test_rows_of_another_width_type_or_target_are_refused() -> None:
    product = packed(rows(96, 64))
    with pytest.raises(ValueError, match="bf16 rows of 64"):
        product.multiply(rows(2, 64).float())
    with pytest.raises(ValueError, match="contiguous"):
        product.multiply(rows(2, 64), out=rows(3, 96))
    with pytest.raises(ValueError, match="contiguous"):
        product.multiply(rows(2, 64), out=rows(96, 2).T)


def test_a_weight_of_an_odd_shape_or_type_has_no_kernel() -> None:
    assert packed_weight(rows(33, 64)) is None
    assert packed_weight(rows(32, 63)) is None
    assert packed_weight(rows(32, 64).float()) is None


def test_without_a_compiler_there_are_no_kernels_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_processor", lambda _field: {"avx2", "fma", "f16c"})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = kernels.load()
    assert found.kernels is None
    assert found.text == "no C compiler was found (cc, gcc, clang)."
    assert "apt-get install gcc" in found.remedy


def test_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "kernels_wanted", lambda: "off")
    monkeypatch.setattr(kernels, "kernels_wanted", lambda: "off")
    found = kernels.load()
    assert found.kernels is None


@pytest.mark.usefixtures("way")
def test_a_source_that_does_not_compile_leaves_torch_and_no_half_made_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, home = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("home")
    (source / "broken.c").write_text("int afina_multiply(")
    monkeypatch.setattr(kernels, "SOURCE", source)
    monkeypatch.setenv("HOME", str(home))
    found = kernels.load()
    assert found.kernels is None
    assert "broken.c" in found.text
    assert list((home / ".cache" / "afina" / "kernels").iterdir()) == []


def test_kernels_are_made_in_the_quickest_way_that_goes_and_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles, vectors, wide, halves = (kernels.load_way(way) for way in (TILES, VECTORS, WIDE, HALVES))
    if halves.kernels is None:
        pytest.skip(halves.text)

    def quickest(*found: Loaded) -> str:
        return next(one.text for one in found if one.kernels is not None)

    for pay, of_bf16 in ((True, [vectors]), (False, [])):
        monkeypatch.setattr(kernels, "bf16_vectors_pay", lambda pay=pay: pay)
        for allowed, ways in {
            "auto": [tiles, *of_bf16, wide, halves],
            "vectors": [vectors, wide, halves],
            "wide": [wide, halves],
            "halves": [halves],
        }.items():
            monkeypatch.setattr(kernels, "kernels_wanted", lambda allowed=allowed: allowed)
            assert kernels.load().text == quickest(*ways)
    monkeypatch.setattr(kernels, "kernels_wanted", lambda: "auto")
    monkeypatch.setattr(kernels, "_lent_tiles", lambda: False)
    assert kernels.load().text == quickest(wide, halves)
