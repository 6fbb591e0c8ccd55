"""No part of a stop string is ever shown, and nothing else is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afina.serving.stops import StopFilter


@given(
    pieces=st.lists(st.text("ab ", max_size=4), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
)
def test_text_is_shown_up_to_the_stop_string_that_is_complete_first(
    pieces: list[str], stops: list[str]
) -> None:
    out = StopFilter(stops)
    shown = ""
    for piece in pieces:
        shown += out.push(piece)
        if out.stopped:
            break
    shown += out.finish()
    text = "".join(pieces)
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    assert out.stopped == bool(ends)
    assert shown == (text[: min(ends)[1]] if ends else text)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    out = StopFilter(["END"])
    assert out.push("the E") == "the "
    assert out.push("N") == ""
    assert out.push("d") == "ENd"
    assert out.push("E") == ""
    assert out.finish() == "E"
