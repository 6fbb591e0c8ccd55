"""Rate limits: the settings' own, or what an admin set for a project and model; and the counters.

A tuned model shares the limits of its base. The counters live in the process that answers, so with
two api processes a project may use its limit in each. Tokens count as prompt plus answer; the
answer's are reserved by `max_tokens` and given back when it was shorter.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.limits import Bucket, RateLimit, in_duration
from afina.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestsLimited,
    RequestsStopped,
    TokensBeyondLimit,
    TokensLimited,
)
from afina.service import bases
from afina.service.audit import note, require_admin
from afina.service.lately import Lately
from afina.service.platform import Platform
from afina.service.projects import project_of
from afina.store import limits

_MINUTE_S: Final = 60.0
_DAY_S: Final = 86_400.0
_PROJECTS_MOST: Final = 1024
_RESERVED_MOST: Final = 4096
_STANDINGS_KEPT: Final = 4096
PREFIX: Final = "rl-"


@dataclass(frozen=True)
class Standing:
    """What is left to a project for one model, for the headers of an answer."""

    requests: Bucket | None
    tokens: Bucket | None

    def headers(self) -> list[tuple[str, str]]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`."""
        found = []
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                left = max(0, int(bucket.level))
                found.append((f"x-ratelimit-limit-{name}", str(int(bucket.capacity))))
                found.append((f"x-ratelimit-remaining-{name}", str(left)))
                found.append((f"x-ratelimit-reset-{name}", in_duration(bucket.reset_s)))
        return found


class RateLimiter:
    """Counts what projects ask for. Safe for many threads."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self._limits: Lately[str, dict[str, RateLimit]] = Lately(self._look, platform.clock)
        self._changed: dict[str, dict[str, RateLimit]] = {}
        self._standings: OrderedDict[str, Standing] = OrderedDict()
        self._lock = threading.Lock()

    async def know(self, project_id: str) -> None:
        """Looks up what was changed for the project, unless that was done within a second. `admit`
        counts by what is known, and never waits for the store."""
        if project_id not in self._changed and len(self._changed) >= _PROJECTS_MOST:
            self._changed.clear()
        self._changed[project_id] = await self._limits.get(project_id)

    def admit(self, project_id: str, model: str, tokens: int, request_id: str) -> None:
        """Counts a request and its tokens. Raises RequestsLimited or TokensLimited, which name the
        limit and say when to come again; then nothing is counted."""
        limit = self._limit(project_id, model)
        now = self._platform.clock.monotonic()
        with self._lock:
            wanted = [
                ("requests", 1.0, limit.requests_per_minute, _MINUTE_S),
                ("requests per day", 1.0, limit.requests_per_day, _DAY_S),
                ("tokens", float(tokens), limit.tokens_per_minute, _MINUTE_S),
            ]
            taken: dict[str, Bucket] = {}
            short: tuple[str, float, Bucket] | None = None
            for name, amount, capacity, period in wanted:
                if capacity is None:
                    continue
                bucket = self._bucket((project_id, model, name), capacity, period, now)
                if bucket.level < min(amount, bucket.capacity) or amount > bucket.capacity:
                    short = short or (name, amount, bucket)
                taken[name] = bucket.less(amount)
            if short is None:
                for name, bucket in taken.items():
                    self._buckets[project_id, model, name] = bucket
            standing = self._standing(project_id, model, limit, now)
            self._keep(request_id, standing)
        if short is not None:
            raise _limited(model, project_id, *short)

    def settle(self, project_id: str, model: str, reserved: int, used: int) -> None:
        """Gives back the tokens that were reserved and not used."""
        with self._lock:
            key = (project_id, model, "tokens")
            bucket = self._buckets.get(key)
            if bucket is not None:
                level = min(bucket.capacity, bucket.level + reserved - used)
                self._buckets[key] = replace(bucket, level=level)

    def standing_of(self, request_id: str) -> Standing | None:
        """What the request left; asked for once."""
        with self._lock:
            return self._standings.pop(request_id, None)

    def _limit(self, project_id: str, model: str) -> RateLimit:
        changed = self._changed.get(project_id, {})
        return changed.get(model) or default_limit(self._platform, model)

    def _look(self, project_id: str) -> dict[str, RateLimit]:
        with self._platform.database.read() as tx:
            return limits.rate_limits(tx, project_id)

    def _bucket(
        self, key: tuple[str, str, str], capacity: float, period: float, now: float
    ) -> Bucket:
        known = self._buckets.get(key)
        if known is None or known.capacity != capacity:
            return Bucket.full(capacity, period, now)
        return known.at(now)

    def _standing(self, project_id: str, model: str, limit: RateLimit, now: float) -> Standing:
        def left(name: str, capacity: int | None) -> Bucket | None:
            if capacity is None:
                return None
            return self._bucket((project_id, model, name), capacity, _MINUTE_S, now)

        return Standing(
            left("requests", limit.requests_per_minute), left("tokens", limit.tokens_per_minute)
        )

    def _keep(self, request_id: str, standing: Standing) -> None:
        self._standings[request_id] = standing
        while len(self._standings) > _STANDINGS_KEPT:
            self._standings.popitem(last=False)


def default_limit(platform: Platform, model: str) -> RateLimit:
    """What the settings say for every project and model."""
    given = platform.settings.limits
    return RateLimit(
        model, given.requests_per_minute, given.tokens_per_minute, given.requests_per_day
    )


def list_rate_limits(platform: Platform, caller: Caller, project_id: str) -> list[RateLimit]:
    """The project's limits, one a model that it can use."""
    require_admin(caller)
    with platform.database.read() as tx:
        project = project_of(tx, caller, project_id)
        changed = limits.rate_limits(tx, project.id)
    names = [base.id for base in bases.list_bases(platform)]
    return [changed.get(name) or default_limit(platform, name) for name in names]


def change_rate_limit(
    platform: Platform,
    caller: Caller,
    project_id: str,
    limit_id: str,
    changes: Mapping[str, int | None],
) -> RateLimit:
    """Sets some of a project's limits for a model, or takes them away with None. Raises NotFound,
    InvalidRequest."""
    model = limit_id.removeprefix(PREFIX)
    for found in list_rate_limits(platform, caller, project_id):
        if found.model == model and limit_id.startswith(PREFIX):
            break
    else:
        raise NotFound(f"No such rate limit: {limit_id[:300]}", param="rate_limit_id")
    for name, value in changes.items():
        if value is not None and value < 0:
            raise InvalidRequest(f"{name} must not be negative.", param=name, code="invalid_value")
    changed = RateLimit(**{**asdict(found), **changes})
    with platform.database.write() as tx:
        limits.put_rate_limit(tx, project_id, changed)
        note(platform, tx, caller, "rate_limit.updated", limit_id, project_id=project_id, **changes)
    return changed


def reserve(prompt_tokens: int, max_tokens: int) -> int:
    """Tokens that a request counts for before its answer is known; a limit of an answer that is
    the whole window would shut everybody out."""
    return prompt_tokens + min(max_tokens, _RESERVED_MOST)


def _limited(model: str, project_id: str, name: str, amount: float, bucket: Bucket) -> Overloaded:
    kind = TokensLimited if name == "tokens" else RequestsLimited
    what = {"requests": "requests per min", "tokens": "tokens per min"}.get(name, name)
    numbers = f"limit {int(bucket.capacity)}, requested {int(amount)}"
    if bucket.capacity < 1:
        stopped = RequestsStopped if kind is RequestsLimited else TokensBeyondLimit
        return stopped(
            f"No requests for {model} in project {project_id} are let in: its limit on {what} "
            "is 0.",
            remedy="An admin can raise it (POST /v1/organization/projects/"
            f"{project_id}/rate_limits/{PREFIX}{model}).",
        )
    if amount > bucket.capacity:
        return TokensBeyondLimit(
            f"Request too large for {model} in project {project_id} on {what}: {numbers}.",
            remedy="Shorten the prompt or max_tokens.",
        )
    wait = bucket.wait_s(amount)
    return kind(
        f"Rate limit reached for {model} in project {project_id} on {what}: {numbers}. Please try "
        f"again in {in_duration(wait)}.",
        retry_after_s=max(wait, 0.001),
    )
