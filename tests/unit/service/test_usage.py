"""Metering: each request once, at the price of its base, in exact integers."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import BASE, first_caller, open_platform

from afina.domain.accounts import Caller
from afina.errors import BadSettings, InvalidRequest
from afina.inside_settings import Price
from afina.service.platform import Platform
from afina.service.pricing import check_prices, prices_of
from afina.service.usage import (
    PROMPT_PAID,
    UsageQuery,
    list_ledger,
    record_inference,
    summarize,
    usage_tag,
)
from afina.serving.protocol import UsageRecord
from afina.settings import Settings

PRICES = {BASE: {"input": "0.30", "cached_input": "0.15", "output": "1.20"}}


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "priced", prices=PRICES)
    yield opened
    opened.close()


def record(request_id: str, tag: dict[str, str], **fields: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "request_id": request_id,
        "time": 1_700_000_000.9,
        "base": BASE,
        "adapter": None,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 10,
        "outcome": "finished",
        "tag": tag,
    }
    return UsageRecord(**(values | fields))


def test_usage_is_priced_by_the_table(priced: Platform) -> None:
    caller = first_caller(priced)
    assert record_inference(priced, [record("req_1", usage_tag(caller, "gpt"))]) == 1
    entry = list_ledger(priced, caller).data[0]
    assert entry.amount_pico == 60 * 300_000 + 40 * 150_000 + 10 * 1_200_000
    assert (entry.model, entry.base_id, entry.key_id, entry.time) == (
        "gpt",
        BASE,
        caller.key_id,
        1_700_000_000,
    )


def test_a_journal_read_again_adds_nothing(priced: Platform) -> None:
    caller = first_caller(priced)
    records = [record(f"req_{n}", usage_tag(caller, BASE)) for n in range(5)]
    assert record_inference(priced, records[:3]) == 3
    assert record_inference(priced, records) == 2
    assert record_inference(priced, records) == 0
    assert record_inference(priced, []) == 0
    total = summarize(priced, caller, UsageQuery(group_by=()))
    assert [(s.entries, s.prompt_tokens, s.cached_tokens) for s in total] == [(5, 500, 200)]


def test_a_prompt_whose_log_probabilities_are_told_is_paid_once(priced: Platform) -> None:
    caller = first_caller(priced)
    tag = usage_tag(caller, BASE)
    scored = record("req_1-echo", tag, cached_tokens=0, completion_tokens=0)
    answered = record("req_1", {**tag, PROMPT_PAID: "req_1-echo"})
    assert record_inference(priced, [scored, answered]) == 2
    (total,) = summarize(priced, caller, UsageQuery(group_by=()))
    assert (total.prompt_tokens, total.cached_tokens, total.completion_tokens) == (100, 0, 10)
    assert total.amount_pico == 100 * 300_000 + 10 * 1_200_000


def test_a_record_without_a_tag_is_kept_for_no_project(priced: Platform) -> None:
    caller = first_caller(priced)
    assert record_inference(priced, [record("req_1", {})]) == 1
    assert list_ledger(priced, caller).data == ()


def test_sums_are_the_projects_own(priced: Platform, stranger: Caller, caller: Caller) -> None:
    mine = first_caller(priced)
    theirs = Caller("proj_other", "key_other", "org-other")
    records = [record("a", usage_tag(mine, "m1")), record("b", usage_tag(theirs, "m1"))]
    record_inference(priced, [*records, record("c", usage_tag(mine, "m2"), outcome="left")])
    assert [(s.group, s.entries) for s in summarize(priced, mine)] == [
        ((("model", "m1"), ("kind", "inference")), 1),
        ((("model", "m2"), ("kind", "inference")), 1),
    ]


def test_a_span_that_ends_before_it_starts_is_refused(platform: Platform, caller: Caller) -> None:
    with pytest.raises(InvalidRequest):
        summarize(platform, caller, UsageQuery(start=5, end=5))


def test_a_time_beyond_all_calendars_is_refused(platform: Platform, caller: Caller) -> None:
    with pytest.raises(InvalidRequest):
        summarize(platform, caller, UsageQuery(start=2**70))


@pytest.mark.parametrize("price", ["0.0000001", "-1"])
def test_prices_that_cannot_be_exact_are_refused_at_the_start(tmp_path: Path, price: str) -> None:
    with pytest.raises(BadSettings, match="price"):
        open_platform(tmp_path / "data", prices={BASE: {"input": price}})


def test_a_price_list_may_be_named_in_the_settings(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, prices={"*": Price(profile="gpt-4o-mini-2024-07-18")})
    assert prices_of(settings, "any").training == 3_000_000


@pytest.mark.parametrize(
    "price", [Price(profile="gpt-9"), Price(profile="gpt-4.1", input=Decimal(1))]
)
def test_a_wrong_price_list_is_refused_by_name(tmp_path: Path, price: Price) -> None:
    with pytest.raises(BadSettings, match="profile"):
        check_prices(Settings(data=tmp_path, prices={"base": price}))
