"""Lanes of tunes with own weights go by bytes, and never under a request."""

from __future__ import annotations

from typing import cast

import pytest

from afina.errors import Overloaded
from afina.serving.lane import Lane
from afina.serving.own_lanes import OwnLane, OwnLanes


def own(size: int) -> OwnLane:
    return OwnLane(cast(Lane, object()), size)


def test_the_least_recently_used_makes_room_by_bytes() -> None:
    lanes = OwnLanes(100)
    for name in "abc":
        assert lanes.make_room(30) == []
        lanes.add(name, own(30))
    lanes.find("a")
    assert lanes.make_room(40) == ["b"]
    lanes.add("d", own(40))
    assert lanes.resident == ["c", "a", "d"]
    assert lanes.size == 100


def test_what_a_request_uses_stays_and_too_much_of_it_is_refused() -> None:
    lanes = OwnLanes(100)
    lanes.enter("a")
    lanes.add("a", own(60))
    lanes.add("b", own(30))
    with pytest.raises(Overloaded):
        lanes.make_room(50)
    assert lanes.resident == ["a", "b"]
    assert lanes.leave("a") == []
    assert lanes.make_room(50) == ["a"]


def test_one_larger_than_the_limit_may_be_alone() -> None:
    lanes = OwnLanes(100)
    lanes.add("a", own(60))
    assert lanes.make_room(500) == ["a"]


def test_a_forgotten_one_goes_with_its_last_request() -> None:
    lanes = OwnLanes(100)
    lanes.add("a", own(60))
    lanes.enter("a")
    assert lanes.forget("a") == []
    assert lanes.leave("a") == ["a"]
    assert lanes.forget("a") == []
