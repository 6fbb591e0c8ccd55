"""The ledger takes each use once and adds up exactly."""

from __future__ import annotations

from afina.domain.ledger import EntryKind, LedgerEntry
from afina.service.platform import Platform
from afina.store import ledger
from afina.store.ledger import Span

DAY = 86_400


def entry(request_id: str, amount_pico: int = 0, time: int = 1, **fields: object) -> LedgerEntry:
    values: dict[str, object] = {
        "id": f"led_{request_id}",
        "kind": EntryKind.INFERENCE,
        "request_id": request_id,
        "time": time,
        "organization_id": "org-1",
        "project_id": "proj_1",
        "key_id": "key_1",
        "base_id": "base",
        "model": "base",
        "amount_pico": amount_pico,
    }
    return LedgerEntry(**(values | fields))  # type: ignore[arg-type]


def append(platform: Platform, *entries: LedgerEntry) -> int:
    with platform.database.write() as tx:
        return ledger.append_entries(tx, entries, platform.clock.now())


def test_an_entry_comes_back_as_it_went_in(platform: Platform) -> None:
    given = entry("r1", 123_456_789_012_345_678, prompt_tokens=7, cached_tokens=2)
    append(platform, given)
    with platform.database.read() as tx:
        assert ledger.list_entries(tx, "proj_1", None, 10).data == (given,)


def test_a_request_is_counted_once_whoever_reports_it_again(platform: Platform) -> None:
    assert append(platform, entry("r1", 5), entry("r2", 6)) == 2
    again = entry("r1", 500, id="led_other")
    assert append(platform, again, entry("r3", 7)) == 1
    with platform.database.read() as tx:
        assert ledger.sum_entries(tx, "proj_1", Span(), ())[0].amount_pico == 18


def test_training_and_inference_of_the_same_id_are_two_entries(platform: Platform) -> None:
    training = entry("x", 1, id="led_t", kind=EntryKind.TRAINING)
    assert append(platform, training, entry("x", 2)) == 2


def test_sums_are_exact_beyond_64_bits(platform: Platform) -> None:
    # 9.2 million dollars is where picodollars leave 64 bits; each of these is five million.
    amount = 5_000_000 * 10**12 + 1
    append(platform, *(entry(f"r{n}", amount) for n in range(10)))
    with platform.database.read() as tx:
        assert ledger.sum_entries(tx, "proj_1", Span(), ())[0].amount_pico == 10 * amount


def test_sums_are_grouped_by_day_model_kind_and_key(platform: Platform) -> None:
    append(
        platform,
        entry("a", 1, time=DAY * 20_000, prompt_tokens=3),
        entry("b", 2, time=DAY * 20_001 - 1, prompt_tokens=4),
        entry("c", 4, time=DAY * 20_001, model="other", key_id=None, completion_tokens=9),
    )
    with platform.database.read() as tx:
        days = ledger.sum_entries(tx, "proj_1", Span(), ("day",))
        keys = ledger.sum_entries(tx, "proj_1", Span(), ("key", "model"))
    assert [(s.group, s.amount_pico, s.prompt_tokens) for s in days] == [
        ((("day", "2024-10-04"),), 3, 7),
        ((("day", "2024-10-05"),), 4, 0),
    ]
    assert [(s.group, s.entries) for s in keys] == [
        ((("key", ""), ("model", "other")), 1),
        ((("key", "key_1"), ("model", "base")), 2),
    ]


def test_a_span_begins_at_its_start_and_ends_before_its_end(platform: Platform) -> None:
    append(platform, *(entry(f"r{t}", 1, time=t) for t in (9, 10, 19, 20)))
    with platform.database.read() as tx:
        assert ledger.sum_entries(tx, "proj_1", Span(10, 20), ())[0].entries == 2
        assert ledger.sum_entries(tx, "proj_1", Span(50, 60), ()) == []


def test_another_projects_entries_are_not_seen(platform: Platform) -> None:
    append(platform, entry("r1", 1), entry("r2", 2, project_id="proj_2"))
    with platform.database.read() as tx:
        assert len(ledger.list_entries(tx, "proj_2", None, 10).data) == 1
        assert ledger.sum_entries(tx, "proj_2", Span(), ())[0].amount_pico == 2
