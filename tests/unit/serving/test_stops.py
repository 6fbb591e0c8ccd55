"""No part of a stop string is ever shown, and nothing else is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afina.serving.stops import StopFilter


@given(
    pieces=st.lists(st.text("ab ", max_size=4), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
)
def test_text_is_shown_up_to_the_first_stop_string_and_no_further(
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
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        assert shown == text
        return
    assert out.stopped
    # A piece can complete a later stop string together with the first: text before both counts.
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert len(shown) <= min(ends)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    out = StopFilter(["END"])
    assert out.push("the E") == "the "
    assert out.push("N") == ""
    assert out.push("d") == "ENd"
    assert out.push("E") == ""
    assert out.finish() == "E"
