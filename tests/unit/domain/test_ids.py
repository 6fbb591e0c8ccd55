"""Ids: as long as they say, of sixty-two letters that are equally likely, and never the same."""

from __future__ import annotations

import string
from collections import Counter

from afina.domain.ids import JOB, Ids


def test_every_letter_is_as_likely_as_the_others() -> None:
    drawn = Counter("".join(Ids(seed).new("", 24) for seed in range(2_000)))
    assert set(drawn) == set(string.ascii_letters + string.digits)
    expected = 2_000 * 24 / 62
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi_square < 120  # 61 degrees of freedom: beyond it once in 100,000 draws
    # Bytes taken modulo 62 without throwing any away would favour the first eight: 5 of 256.
    first_eight = sum(drawn[letter] for letter in string.ascii_letters[:8])
    assert first_eight < 8.6 * expected


def test_an_id_has_its_prefix_and_length_however_many_bytes_are_thrown_away() -> None:
    for length in (0, 1, 8, 24, 43, 500):
        made = Ids(7).new(JOB, length)
        assert made.startswith(JOB)
        assert len(made) == len(JOB) + length


def test_ids_of_one_source_differ_and_a_seed_repeats_them() -> None:
    one, again = Ids(3), Ids(3)
    made = [one.new("") for _ in range(1_000)]
    assert len(set(made)) == 1_000
    assert made == [again.new("") for _ in range(1_000)]
