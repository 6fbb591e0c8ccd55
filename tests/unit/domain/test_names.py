"""The name that people read of a tuned model."""

from __future__ import annotations

import pytest

from afina.domain.models import short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ft:smollm2-135m-instruct:local:bard:HoFVNseD", "bard · HoFVNseD"),
        ("ft:smollm2-135m-instruct:local::HoFVNseD", "smollm2-135m-instruct · HoFVNseD"),
        ("ft:tiny:local:bard:HoFVNseD:ckpt-step-13", "bard · HoFVNseD · 13"),
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("<b>ft:</b>", "<b>ft:</b>"),
        ("", ""),
    ],
)
def test_a_tuned_name_is_shortened_to_what_tells_it_from_others(name: str, short: str) -> None:
    assert short_name(name) == short
