"""Plain completions: where the tokens of an answer stand in its text."""

from __future__ import annotations

import random

import pytest

from afina.service.completion_answer import Places

FOX = "\N{FOX FACE}".encode()


@pytest.mark.parametrize(
    ("tokens", "places"),
    [
        ([b"ital", b"q", b"\xb1", b"istan"], [0, 4, 5, 6]),
        ([FOX[:1], FOX[1:3], FOX[3:] + b"a", b"b"], [0, 0, 0, 2]),
        ([FOX[:2], b"mps"], [0, 1]),
        ([b"a\xc3", b"\xa9", b"\xa9"], [0, 1, 2]),
        ([b"\xc3", b"\xc3", b"\xa9"], [0, 1, 1]),
        ([b"\xef\xbf", b"\xbd", b"x"], [0, 0, 1]),
        ([b"a", b"", b"b"], [0, 1, 1]),
    ],
)
def test_a_token_is_told_where_its_first_character_stands_also_among_bytes_that_are_no_text(
    tokens: list[bytes], places: list[int]
) -> None:
    found = Places()
    assert [found.add(token) for token in tokens] == places


def test_whatever_the_bytes_are_a_token_of_whole_characters_stands_where_it_is_told() -> None:
    drawn = random.Random(7)
    pieces = [b"a", b"\xc3", b"\xa9", FOX, FOX[:3], FOX[3:], b"\xff", b"old ", b"\xe2\x82", b"\xac"]
    for _ in range(300):
        tokens = drawn.choices(pieces, k=12)
        text = b"".join(tokens).decode(errors="replace")
        found = Places()
        for token, place in [(token, found.add(token)) for token in tokens]:
            if token in (b"a", b"old ", FOX):
                assert text[place:].startswith(token.decode())
