"""Metering: the ledger of training and inference, written once per request and read in sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.jobs import Job
from afina.domain.ledger import EntryKind, LedgerEntry, UsageSum
from afina.domain.limits import Hold
from afina.domain.pages import Page
from afina.errors import InvalidRequest
from afina.service import budgets, holds
from afina.service.budgets import raise_alerts
from afina.service.files import check_limit
from afina.service.platform import Platform
from afina.service.pricing import prices_of
from afina.service.projects import list_projects
from afina.serving.protocol import UsageRecord
from afina.store import holds as store_holds
from afina.store import jobs, ledger
from afina.store.database import Tx
from afina.store.ledger import Grouping as Grouping

MAX_LIST: Final = 1000
UNSHOWN: Final = "unshown"
"""In a tag: what was computed is not part of the answer, and not paid for."""
PROMPT_PAID: Final = "prompt_paid"
"""In a tag: the request that paid for the same prompt, when its log-probabilities were told."""


@dataclass(frozen=True)
class UsageQuery:
    """A span of time: from `start` to before `end`, in Unix seconds; None is open."""

    start: int | None = None
    end: int | None = None
    group_by: tuple[Grouping, ...] = ("model", "kind")


_ALL: Final = UsageQuery()


def usage_tag(caller: Caller, model: str) -> dict[str, str]:
    """The `tag` of an engine request, by which its usage finds its project, key and model."""
    return {
        "organization": caller.organization_id,
        "project": caller.project_id,
        "key": caller.key_id,
        "model": model,
    }


def record_inference(platform: Platform, records: Sequence[UsageRecord]) -> int:
    """Writes the engine's usage into the ledger; says how many entries were new. A record without
    a tag is kept too, under no project."""
    # A line of a batch that was broken off is asked again under the same id: only that one counts.
    records = [r for r in records if r.outcome == "finished" or "batch" not in r.tag]
    # What the gate asks is the platform's own business: nobody pays for it.
    records = [r for r in records if "gate" not in r.tag]
    entries = [_inference_entry(platform, record) for record in records]
    if not entries:
        return 0
    with platform.database.write() as tx:
        new = ledger.append_entries(tx, entries, platform.clock.now())
    for organization, project in sorted({(e.organization_id, e.project_id) for e in entries}):
        raise_alerts(platform, Caller(project, "", organization))
    return new


def record_embedding(
    platform: Platform, caller: Caller, request_id: str, model: str, tokens: int
) -> None:
    """Writes an embedding's tokens into the ledger, once per request."""
    cost = prices_of(platform.settings, model).inference_cost(tokens, 0, 0)
    _record_read(platform, caller, EntryKind.EMBEDDING, request_id, (model, tokens, cost))
    raise_alerts(platform, caller)


def record_moderation(
    platform: Platform, caller: Caller, request_id: str, model: str, tokens: int
) -> None:
    """Notes a request for moderation in the ledger, once. It costs nothing, as with the hosted
    service, so nothing is checked before and no alert follows."""
    _record_read(platform, caller, EntryKind.MODERATION, request_id, (model, tokens, 0))


def _record_read(
    platform: Platform,
    caller: Caller,
    kind: EntryKind,
    request_id: str,
    read: tuple[str, int, int],
) -> None:
    """An entry of what was read and not answered: model, tokens, cost."""
    model, tokens, cost = read
    entry = LedgerEntry(
        id=platform.ids.new(ids.ENTRY),
        kind=kind,
        request_id=request_id,
        time=platform.now(),
        organization_id=caller.organization_id,
        project_id=caller.project_id,
        key_id=caller.key_id or None,
        base_id=model,
        model=model,
        amount_pico=cost,
        prompt_tokens=tokens,
    )
    with platform.database.write() as tx:
        ledger.append_entries(tx, [entry], platform.clock.now())


def record_training(platform: Platform, tx: Tx, job: Job, model: str, tokens: int) -> int:
    """Bills a job's training once, whoever asks again; in the transaction that ends the job."""
    caller = jobs.caller_of(tx, job.id)
    entry = LedgerEntry(
        id=platform.ids.new(ids.ENTRY),
        kind=EntryKind.TRAINING,
        request_id=job.id,
        time=platform.now(),
        organization_id=caller.organization_id,
        project_id=caller.project_id,
        key_id=caller.key_id or None,
        base_id=job.model,
        model=model,
        amount_pico=training_price(platform, tx, caller.organization_id, job.model, tokens),
        trained_tokens=tokens,
    )
    return ledger.append_entries(tx, [entry], platform.clock.now())


def training_price(
    platform: Platform, tx: Tx, organization_id: str, base_id: str, tokens: int, ahead: int = 0
) -> int:
    """Picodollars for training so many tokens now, after `ahead` others: those that are free today
    cost nothing."""
    left = max(0, holds.free_left(platform, tx, organization_id) - ahead)
    return prices_of(platform.settings, base_id).training_cost(max(0, tokens - left))


def hold_training(platform: Platform, job: Job, epochs: int, tokens_an_epoch: int) -> None:
    """Promises a job what all of its epochs cost, until it is over; once a job. Raises
    QuotaExceeded where a hard limit has no room beside what was promised before."""
    with platform.database.write() as tx:
        caller = jobs.caller_of(tx, job.id)
        store_holds.take_turns(tx, caller.organization_id)
        held = holds.promised_before(platform, tx, caller.organization_id, job.id)
        tokens = epochs * tokens_an_epoch
        cost = training_price(platform, tx, caller.organization_id, job.model, tokens, held.tokens)
        budgets.check_training_budget(platform, tx, caller, cost, held)
        _put_hold(platform, tx, caller, job, epochs, tokens_an_epoch)


def begin_epochs(
    platform: Platform, job: Job, epochs: int, tokens_an_epoch: int, begun: int
) -> None:
    """Notes that `begun` epochs of a job have begun: from now on they count as spent."""
    with platform.database.write() as tx:
        # A job that waited while the platform learned to hold anything has no promise yet.
        _put_hold(platform, tx, jobs.caller_of(tx, job.id), job, epochs, tokens_an_epoch)
        store_holds.note_begun(tx, job.id, begun)


def _put_hold(
    platform: Platform, tx: Tx, caller: Caller, job: Job, epochs: int, tokens_an_epoch: int
) -> None:
    hold = Hold(
        job.id, caller.project_id, caller.organization_id, job.model, tokens_an_epoch, epochs
    )
    store_holds.put_hold(tx, hold, platform.clock.now())


def epoch_budget(
    platform: Platform, job: Job, epochs: int, tokens_an_epoch: int
) -> budgets.EpochBudget:
    """How many epochs of a job its project and organization can still pay."""
    with platform.database.read() as tx:
        caller = jobs.caller_of(tx, job.id)
        held = holds.promised_before(platform, tx, caller.organization_id, job.id)

        def price(count: int) -> int:
            tokens = count * tokens_an_epoch
            organization = caller.organization_id
            return training_price(platform, tx, organization, job.model, tokens, held.tokens)

        return budgets.epochs_within(platform, tx, caller, epochs, price, held)


def list_ledger(
    platform: Platform, caller: Caller, after: str | None = None, limit: int = 100
) -> Page[LedgerEntry]:
    """The project's entries, newest first."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        return ledger.list_entries(tx, caller.project_id, after, limit)


def summarize(platform: Platform, caller: Caller, query: UsageQuery = _ALL) -> list[UsageSum]:
    """Sums of the project's entries in groups; exact integers."""
    if query.start is not None and query.end is not None and query.start >= query.end:
        raise InvalidRequest("The span must end after it starts.", param="end_time")
    span = ledger.Span(query.start, query.end)
    with platform.database.read() as tx:
        return ledger.sum_entries(tx, caller.project_id, span, query.group_by)


def summarize_projects(platform: Platform, caller: Caller, query: UsageQuery) -> list[UsageSum]:
    """A sum for each project of the organization that has entries, under the project's name.
    Raises Forbidden for who does not manage it."""
    span = ledger.Span(query.start, query.end)
    known = list_projects(platform, caller, archived=True)
    with platform.database.read() as tx:
        return [
            replace(found, group=(("project", project.name),))
            for project in known
            for found in ledger.sum_entries(tx, project.id, span, ())
        ]


def _inference_entry(platform: Platform, record: UsageRecord) -> LedgerEntry:
    prices = prices_of(platform.settings, record.base)
    is_paid = PROMPT_PAID in record.tag
    prompt = 0 if is_paid else record.prompt_tokens
    cached = 0 if is_paid else record.cached_tokens
    completion = 0 if UNSHOWN in record.tag else record.completion_tokens
    amount = prices.inference_cost(prompt, cached, completion)
    return LedgerEntry(
        id=platform.ids.new(ids.ENTRY),
        kind=EntryKind.INFERENCE,
        request_id=record.request_id,
        time=int(record.time),
        organization_id=record.tag.get("organization", ""),
        project_id=record.tag.get("project", ""),
        key_id=record.tag.get("key") or None,
        base_id=record.base,
        model=record.tag.get("model") or record.base,
        amount_pico=amount,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        outcome=record.outcome,
        batch="batch" in record.tag,
    )
