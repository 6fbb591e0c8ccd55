"""Budgets, free training tokens, alerts and rate limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.platforms import BASE, clock_of, first_caller, open_platform

from afina.domain.accounts import Caller
from afina.domain.limits import PICO_A_CENT, Bucket, in_duration, month_of
from afina.errors import Forbidden, QuotaExceeded, RequestsLimited, TokensLimited
from afina.service import budgets
from afina.service.audit import list_audit
from afina.service.limits import RateLimiter
from afina.service.platform import Platform
from afina.service.usage import record_inference, training_price, usage_tag
from afina.serving.protocol import UsageRecord

PRICES = {BASE: {"training": "3", "input": "1", "output": "1"}}
DAY_S = 86_400


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(
        tmp_path / "priced",
        prices=PRICES,
        free_training={"tokens_per_day": 1000, "until": "2100-01-01"},
        limits={"requests_per_minute": 2, "tokens_per_minute": 100},
    )
    yield opened
    opened.close()


def spend(platform: Platform, caller: Caller, number: int, dollars: int) -> None:
    """An answer of a million tokens a dollar."""
    record = UsageRecord(
        request_id=f"req_{number}",
        time=float(platform.now()),
        base=BASE,
        adapter=None,
        prompt_tokens=dollars * 1_000_000,
        cached_tokens=0,
        completion_tokens=0,
        outcome="finished",
        tag=usage_tag(caller, BASE),
    )
    assert record_inference(platform, [record]) == 1


def test_a_hard_limit_holds_from_the_cent_at_which_it_is_reached(priced: Platform) -> None:
    caller = first_caller(priced)
    budgets.set_spend_limit(priced, caller, caller.project_id, 200)
    spend(priced, caller, 1, 1)
    budgets.check_budget(priced, caller)
    spend(priced, caller, 2, 1)
    with pytest.raises(QuotaExceeded, match=r"may spend \$2.00 a month and has spent \$2.00"):
        budgets.check_budget(priced, caller)


def test_who_is_refused_is_told_where_the_limit_that_binds_is_set(priced: Platform) -> None:
    caller = first_caller(priced)
    project = caller.project_id
    for holder, place in ((project, f"/projects/{project}/spend_limit"), (None, "/spend_limit")):
        budgets.set_spend_limit(priced, caller, holder, 0)
        with pytest.raises(QuotaExceeded) as refused:
            budgets.check_budget(priced, caller)
        assert f"(POST /v1/organization{place})" in refused.value.one_line()
        budgets.remove_spend_limit(priced, caller, holder)


def test_the_organizations_limit_binds_every_project(priced: Platform) -> None:
    caller = first_caller(priced)
    budgets.set_spend_limit(priced, caller, None, 100)
    spend(priced, caller, 1, 1)
    with pytest.raises(QuotaExceeded, match="the organization"):
        budgets.check_budget(priced, replace(caller, project_id="proj_other"))


def test_a_new_month_begins_with_nothing_spent(priced: Platform) -> None:
    caller = first_caller(priced)
    budgets.set_spend_limit(priced, caller, None, 100)
    spend(priced, caller, 1, 5)
    clock_of(priced).advance(32 * DAY_S)
    budgets.check_budget(priced, caller)


def test_a_training_that_would_break_the_limit_says_its_cost_and_what_is_left(
    priced: Platform,
) -> None:
    caller = first_caller(priced)
    budgets.set_spend_limit(priced, caller, None, 300)
    spend(priced, caller, 1, 1)
    with priced.database.read() as tx:
        budgets.check_training_budget(priced, tx, caller, 200 * PICO_A_CENT)
        with pytest.raises(QuotaExceeded, match=r"cost \$2.01, and \$2.00 is left") as refused:
            budgets.check_training_budget(priced, tx, caller, 201 * PICO_A_CENT)
    assert refused.value.code == "exceeded_quota"


def test_an_alert_is_raised_once_a_month(priced: Platform) -> None:
    caller = first_caller(priced)
    alert = budgets.create_alert(priced, caller, None, 150, ["ops@example.com"])
    for number in range(4):
        spend(priced, caller, number, 1)
    raised = [e for e in list_audit(priced, caller).data if e.type == "spend_alert.raised"]
    assert [entry.resource_id for entry in raised] == [alert.id]
    clock_of(priced).advance(32 * DAY_S)
    spend(priced, caller, 9, 2)
    raised = [e for e in list_audit(priced, caller).data if e.type == "spend_alert.raised"]
    assert len(raised) == 2


def test_free_training_tokens_are_given_by_the_day(priced: Platform) -> None:
    organization = first_caller(priced).organization_id
    with priced.database.read() as tx:
        assert training_price(priced, tx, organization, BASE, 999) == 0
        assert training_price(priced, tx, organization, BASE, 1010) == 10 * 3_000_000


def test_a_key_of_a_project_changes_no_budget(priced: Platform) -> None:
    with pytest.raises(Forbidden, match="admin key"):
        budgets.set_spend_limit(priced, Caller("proj_x", "key_x", "org-x"), None, 1)


def test_a_limiter_counts_requests_and_tokens_and_forgives_with_time(priced: Platform) -> None:
    limiter = RateLimiter(priced)
    limiter.admit("proj_a", BASE, 60, "req_1")
    with pytest.raises(TokensLimited, match="limit 100, requested 60") as refused:
        limiter.admit("proj_a", BASE, 60, "req_2")
    assert refused.value.retry_after_s == pytest.approx(12)
    limiter.settle("proj_a", BASE, reserved=60, used=10)
    limiter.admit("proj_a", BASE, 60, "req_3")
    with pytest.raises(RequestsLimited, match="requests per min"):
        limiter.admit("proj_a", BASE, 1, "req_4")
    limiter.admit("proj_b", BASE, 1, "req_5")
    clock_of(priced).advance(60)
    limiter.admit("proj_a", BASE, 100, "req_6")
    standing = limiter.standing_of("req_6")
    assert standing is not None
    assert dict(standing.headers())["x-ratelimit-remaining-tokens"] == "0"
    assert limiter.standing_of("req_6") is None


def test_a_request_that_never_fits_is_told_so(priced: Platform) -> None:
    with pytest.raises(TokensLimited, match="too large") as refused:
        RateLimiter(priced).admit("proj_a", BASE, 101, "req_1")
    assert refused.value.retry_after_s is None


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=20))
def test_a_bucket_never_holds_more_than_its_capacity(steps: list[tuple[float, float]]) -> None:
    bucket, now = Bucket.full(10, 60, 0), 0.0
    for passed, amount in steps:
        now += passed
        bucket = bucket.at(now)
        assert bucket.level <= 10
        wait = bucket.wait_s(min(amount, 10))
        assert bucket.at(now + wait).level >= min(amount, 10) - 1e-6
        bucket = bucket.less(min(amount, bucket.level))
        assert bucket.level >= 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.02, "20ms"), (1, "1s"), (360, "6m0s"), (3661, "1h1m1s")]
)
def test_spans_of_time_are_written_as_the_headers_write_them(seconds: float, shown: str) -> None:
    assert in_duration(seconds) == shown


def test_months_begin_in_utc() -> None:
    assert month_of(1_764_547_199) == ("2025-11", 1_761_955_200)
    assert month_of(1_764_547_200) == ("2025-12", 1_764_547_200)


def test_epochs_are_counted_as_far_as_the_tightest_limit_goes(priced: Platform) -> None:
    caller = first_caller(priced)

    def within(epochs: int) -> budgets.EpochBudget:
        with priced.database.read() as tx:
            return budgets.epochs_within(
                priced, tx, caller, epochs, lambda count: count * 100 * PICO_A_CENT
            )

    assert within(3).epochs is None
    budgets.set_spend_limit(priced, caller, caller.project_id, 250)
    budgets.set_spend_limit(priced, caller, None, 900)
    assert within(2).epochs is None
    assert within(3).epochs == 2
    assert "3 of 5 epochs would cost $3.00, and $2.50 is left" in str(within(5).reason)
    spend(priced, caller, 1, 2)
    assert within(3).epochs == 0
