"""Numbers as the reader's language writes them."""

from __future__ import annotations

from afina.language.numbers import tiny


def test_a_small_number_is_written_by_its_power_of_ten_with_the_language_s_sign() -> None:
    thin = "\N{NARROW NO-BREAK SPACE}"
    assert tiny("en", 0.00115) == f"1.15{thin}×{thin}10⁻³"
    assert tiny("es", 0.00115) == f"1,15{thin}×{thin}10⁻³"
    assert tiny("pt", 0.005, 1) == f"5{thin}×{thin}10⁻³"
    assert tiny("en", 0.0) == f"0.00{thin}×{thin}10⁰"
    assert tiny("en", 3.2e-12) == f"3.20{thin}×{thin}10⁻¹²"
