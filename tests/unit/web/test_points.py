"""A very long run's curve loses steps, never a peak."""

from __future__ import annotations

from afina.web.points import MOST, thin


def _points(count: int) -> list[list[object]]:
    return [[i, count, 2.0, 0.5, None, None, None, None] for i in range(1, count + 1)]


def test_a_run_of_ordinary_length_is_shown_whole() -> None:
    points = _points(MOST)
    assert thin(points) is points


def test_peaks_validations_and_both_ends_of_a_long_run_stay() -> None:
    points = _points(100_000)
    points[77_777][2], points[33_333][2], points[12_345][6] = 9.0, -9.0, 1.5
    found = thin(points)
    assert len(found) <= MOST
    for place in (0, 12_345, 33_333, 77_777, 99_999):
        assert points[place] in found
    assert [point[0] for point in found] == sorted({point[0] for point in found})
