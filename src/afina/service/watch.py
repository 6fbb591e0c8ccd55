"""The abuse watch: what is asked of served models and what they answer is moderated, counted by key
and model, and above a threshold somebody is told, or the key is stopped.

No text is stored, and none is written to a log: a text lives in memory until it is judged. What is
counted stands in the table `watch`, what was done in `watch_states`, in the audit log, and in the
webhook `afina.watch.triggered`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from afina.domain.accounts import Caller
from afina.domain.watch import (
    FLAGGED,
    HOUR_S,
    LOOKED_AT,
    RELEASED,
    Watched,
    WatchState,
    WatchTally,
)
from afina.errors import Forbidden, NotFound
from afina.service.audit import note, require_admin
from afina.service.platform import Platform
from afina.service.webhooks import emit
from afina.store import watch
from afina.store.database import Tx

EVENT: Final = "afina.watch.triggered"
KEPT_S: Final = 90 * 24 * HOUR_S
"""How long a tally is kept."""
log = structlog.get_logger()


def check_allowed(platform: Platform, who: Watched) -> None:
    """Raises Forbidden where the watch has stopped the key, for this model or for all."""
    with platform.database.read() as tx:
        found = watch.states(tx, who.project_id, who.key_id)
    for state in found:
        if state.state == "suspend":
            raise _stopped("This API key is suspended", "key_suspended", who)
        if state.state == "block" and state.model == who.model:
            raise _stopped(f"This API key may not ask `{who.model}`", "key_blocked", who)


def count(platform: Platform, who: Watched, counts: Mapping[str, int]) -> WatchState | None:
    """Adds to the tally of a key and a model; what was done because of it, if anything."""
    with platform.database.write() as tx:
        watch.add_counts(tx, who, platform.now(), counts)
        if not counts.get(FLAGGED):
            return None
        state = _judged(platform, tx, who)
        if state is None:
            return None
        watch.put_state(tx, state)
        tell = Caller(who.project_id, who.key_id, who.organization_id)
        note(
            platform,
            tx,
            tell,
            f"watch.{state.state}",
            who.key_id or who.project_id,
            model=who.model,
            looked_at=state.looked_at,
            flagged=state.flagged,
        )
        emit(platform, tx, who.project_id, EVENT, who.key_id or who.project_id)
    log.warning(
        "watch.triggered",
        action=state.state,
        key=who.key_id,
        model=who.model,
        flagged=state.flagged,
        looked_at=state.looked_at,
    )
    return state


def list_watch(platform: Platform, caller: Caller) -> list[WatchTally]:
    """The tallies of the caller's project in the window, and what was done; by key and model.
    Raises Forbidden where the key manages nothing."""
    require_admin(caller)
    with platform.database.read() as tx:
        return watch.tallies(tx, caller.project_id, _since(platform))


def release(platform: Platform, caller: Caller, key_id: str) -> list[WatchState]:
    """The key may ask again; what it was counted for up to this hour counts no more. Raises
    NotFound where nothing was done about it, Forbidden where the caller manages nothing."""
    require_admin(caller)
    with platform.database.write() as tx:
        found = [s for s in watch.states(tx, caller.project_id, key_id) if s.state != RELEASED]
        if not found:
            raise NotFound(
                f"The abuse watch has done nothing about the key `{key_id[:100]}`.", param="key_id"
            )
        for state in found:
            watch.put_state(
                tx,
                WatchState(
                    state.project_id, key_id, state.model, RELEASED, platform.now(),
                    state.looked_at, state.flagged,
                ),
            )  # fmt: skip
        note(platform, tx, caller, "watch.released", key_id)
    return found


def forget_old(platform: Platform) -> int:
    """Takes away tallies that are older than `KEPT_S`; says how many rows."""
    with platform.database.write() as tx:
        return watch.forget_before(tx, (platform.now() - KEPT_S) // HOUR_S)


def _judged(platform: Platform, tx: Tx, who: Watched) -> WatchState | None:
    """What must be done now; None where nothing, or where it was done already."""
    settings = platform.settings.watch
    since = _since(platform)
    known = {s.model: s for s in watch.states(tx, who.project_id, who.key_id)}.get(who.model)
    if known is not None:
        if known.state == RELEASED:
            since = max(since, known.since // HOUR_S + 1)
        elif known.state != "alert" or known.since // HOUR_S >= since:
            return None
    found = watch.tally(tx, who, since)
    enough = found.flagged >= settings.least_flagged
    if not enough or found.flagged < settings.share * found.counts.get(LOOKED_AT, 0):
        return None
    return WatchState(
        who.project_id, who.key_id, who.model, settings.action, platform.now(),
        found.looked_at, found.flagged,
    )  # fmt: skip


def _since(platform: Platform) -> int:
    return platform.now() // HOUR_S - platform.settings.watch.window_hours + 1


def _stopped(what: str, code: str, who: Watched) -> Forbidden:
    return Forbidden(
        f"{what}: too much of what it asked for, or was answered, was flagged by moderation.",
        code=code,
        remedy=f"An admin can let it ask again: `afina watch release {who.key_id or 'KEY'}`.",
    )
