"""The organization's operations as the official client speaks them; every answer is checked
against the client's types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from tests.contract.live import BASE, Live
from tests.platforms import first_caller

from afina.domain.limits import month_of
from afina.domain.reports import WIDTHS
from afina.service.usage import record_embedding, record_inference, usage_tag
from afina.serving.protocol import UsageRecord

DAY_S = WIDTHS["1d"]


@pytest.fixture
def admin(live: Live) -> Iterator[Any]:
    """The client's part for the organization, with the machine's first key."""
    with openai.OpenAI(
        base_url=f"{live.url}/v1", api_key=live.key, admin_api_key=live.key, max_retries=0
    ) as client:
        yield client.admin.organization


def client_of(live: Live, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, admin_api_key=key, max_retries=0)


def valid(found: Any) -> Any:
    """What the client made of an answer, once it is of its own type in every field."""
    assert isinstance(found, BaseModel)
    type(found).model_validate(found.model_dump(), strict=True)
    return found


def valid_page(found: Any) -> list[Any]:
    return [valid(item) for item in found.data]


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "hello"}], **more
    )


def test_a_project_lives_and_is_archived_with_its_keys(admin: Any, live: Live) -> None:
    project = valid(admin.projects.create(name="Claims"))
    assert (project.status, project.archived_at) == ("active", None)
    assert valid(admin.projects.update(project.id, name="Claims EU")).name == "Claims EU"
    account = valid(admin.projects.service_accounts.create(project.id, name="nightly"))
    with client_of(live, account.api_key.value) as theirs:
        assert theirs.files.list().data == []
        assert valid(admin.projects.archive(project.id)).status == "archived"
        with pytest.raises(openai.AuthenticationError, match="archived"):
            theirs.files.list()
    assert project.id not in {found.id for found in admin.projects.list(limit=100)}
    everything = admin.projects.list(limit=100, include_archived=True)
    assert project.id in {found.id for found in everything}


def test_projects_are_strangers_to_each_other(
    admin: Any, client: openai.OpenAI, live: Live
) -> None:
    mine = client.files.create(file=("a.jsonl", b'{"a": 1}\n'), purpose="user_data")
    project = admin.projects.create(name="Others")
    account = admin.projects.service_accounts.create(project.id, name="other")
    with client_of(live, account.api_key.value) as theirs:
        with pytest.raises(openai.NotFoundError):
            theirs.files.retrieve(mine.id)
        assert [model.id for model in theirs.models.list()] == [BASE]
        with pytest.raises(openai.PermissionDeniedError, match="admin key"):
            theirs.admin.organization.projects.list()


def test_an_admin_key_manages_and_opens_no_project(admin: Any, live: Live) -> None:
    made = valid(admin.admin_api_keys.create(name="ops", expires_in_seconds=3600))
    assert made.value.startswith("sk-afina-admin-")
    assert made.value not in valid(admin.admin_api_keys.retrieve(made.id)).redacted_value
    with client_of(live, made.value) as ops:
        assert ops.admin.organization.projects.list().data
        with pytest.raises(openai.PermissionDeniedError, match="opens no files"):
            ops.files.list()
    assert made.id in {key.id for key in valid_page(admin.admin_api_keys.list(limit=100))}
    assert valid(admin.admin_api_keys.delete(made.id)).deleted
    with (
        client_of(live, made.value) as ops,
        pytest.raises(openai.AuthenticationError, match="revoked"),
    ):
        ops.admin.organization.projects.list()


def test_a_restricted_key_does_what_its_scopes_say(admin: Any, live: Live) -> None:
    project = admin.projects.create(name="Restricted").id
    account = admin.projects.service_accounts.create(
        project, name="reader", create_service_account_only=True
    )
    assert (account.role, account.api_key) == ("none", None)
    key = valid(
        admin.projects.service_accounts.api_keys.create(
            account.id, project_id=project, scopes=["api.all.read"]
        )
    )
    with client_of(live, key.value) as reader:
        assert reader.files.list().data == []
        with pytest.raises(
            openai.PermissionDeniedError, match=r"Missing scopes: api\.files\.write"
        ):
            reader.files.create(file=("a.jsonl", b"{}\n"), purpose="user_data")
        with pytest.raises(openai.PermissionDeniedError, match=r"api\.model\.request"):
            ask(reader)
        shown = valid(
            admin.projects.api_keys.update(key.id, project_id=project, scopes=["api.model.request"])
        )
        assert shown.owner.service_account.id == account.id
        assert ask(reader).choices
    with pytest.raises(openai.BadRequestError, match="There is no scope"):
        admin.projects.api_keys.update(key.id, project_id=project, scopes=["api.everything"])
    assert valid(admin.projects.api_keys.delete(key.id, project_id=project)).deleted
    assert admin.projects.api_keys.list(project).data == []


def test_people_come_by_invitation_and_leave_with_their_places(admin: Any) -> None:
    project = admin.projects.create(name="People").id
    invite = valid(
        admin.invites.create(
            email="Ana@example.com", role="reader", projects=[{"id": project, "role": "member"}]
        )
    )
    assert (invite.status, invite.email) == ("accepted", "ana@example.com")
    with pytest.raises(openai.ConflictError):
        admin.invites.create(email="ana@example.com", role="reader")
    assert valid(admin.invites.retrieve(invite.id)) == invite
    with pytest.raises(openai.BadRequestError, match="has been accepted") as refused:
        admin.invites.delete(invite.id)
    assert f"/users/{invite.id}" in refused.value.message
    for act in (admin.invites.retrieve, admin.invites.delete):
        with pytest.raises(openai.NotFoundError, match="No such invite"):
            act("invite-none")
    [user] = [u for u in valid_page(admin.users.list()) if u.email == "ana@example.com"]
    assert [(p.id, p.role) for p in user.projects.data] == [(project, "member")]
    assert valid(admin.users.update(user.id, role="owner")).role == "owner"
    member = admin.projects.users.update(user.id, project_id=project, role="owner")
    assert valid(member).role == "owner"
    assert [m.id for m in valid_page(admin.projects.users.list(project))] == [user.id]
    admin.projects.users.delete(user.id, project_id=project)
    with pytest.raises(openai.NotFoundError):
        admin.projects.users.retrieve(user.id, project_id=project)
    again = admin.projects.users.create(project, role="member", email="ana@example.com")
    assert valid(again).id == user.id
    assert valid(admin.users.delete(user.id)).deleted
    assert admin.projects.users.list(project).data == []


@pytest.mark.parametrize(
    ("limit", "kind", "said"),
    [
        ({"max_requests_per_1_minute": 0}, "requests", "its limit on requests per min is 0"),
        ({"max_tokens_per_1_minute": 0}, "tokens", "its limit on tokens per min is 0"),
        ({"max_tokens_per_1_minute": 20}, "tokens", "Request too large"),
    ],
)
def test_what_no_waiting_helps_is_said_and_not_to_be_tried_again(
    admin: Any, live: Live, limit: dict[str, int], kind: str, said: str
) -> None:
    project = admin.projects.create(name="Stopped").id
    admin.projects.rate_limits.update_rate_limit(f"rl-{BASE}", project_id=project, **limit)
    key = admin.projects.service_accounts.create(project, name="busy").api_key.value
    with client_of(live, key) as theirs:
        for _ in range(2):
            with pytest.raises(openai.RateLimitError, match=said) as refused:
                ask(theirs, max_tokens=100)
            assert refused.value.type == kind
            headers = refused.value.response.headers
            assert headers["x-should-retry"] == "false"
            assert "retry-after" not in headers
            assert headers[f"x-ratelimit-limit-{kind}"] == str(next(iter(limit.values())))


def test_a_rate_limit_refuses_names_itself_and_shows_in_the_headers(admin: Any, live: Live) -> None:
    project = admin.projects.create(name="Limited").id
    account = admin.projects.service_accounts.create(project, name="busy")
    [limit] = valid_page(admin.projects.rate_limits.list_rate_limits(project))
    assert limit.model == BASE
    changed = admin.projects.rate_limits.update_rate_limit(
        limit.id, project_id=project, max_requests_per_1_minute=2, max_tokens_per_1_minute=10_000
    )
    assert valid(changed).max_requests_per_1_minute == 2
    with client_of(live, account.api_key.value) as busy:
        raw = busy.chat.completions.with_raw_response.create(
            model=BASE, messages=[{"role": "user", "content": "hello"}], max_tokens=5
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 10_000
        ask(busy, max_tokens=5)
        with pytest.raises(openai.RateLimitError, match="requests per min") as refused:
            ask(busy, max_tokens=5)
        assert refused.value.type == "requests"
        assert refused.value.code == "rate_limit_exceeded"
        assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
        assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_spend_limit_refuses_answers_and_jobs_until_it_is_lifted(admin: Any, live: Live) -> None:
    project = admin.projects.create(name="Poor").id
    account = admin.projects.service_accounts.create(project, name="poor")
    spend = admin.projects.spend_limit
    limit = valid(spend.update(project, currency="USD", interval="month", threshold_amount=0))
    assert limit.enforcement.status == "enforcing"
    with client_of(live, account.api_key.value) as poor:
        with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as refused:
            ask(poor)
        assert refused.value.code == "insufficient_quota"
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert valid(spend.delete(project)).deleted
        assert ask(poor).choices
    with pytest.raises(openai.NotFoundError, match="no spend limit"):
        spend.retrieve(project)
    total = admin.spend_limit.update(currency="USD", interval="month", threshold_amount=10**9)
    assert valid(total).enforcement.status == "inactive"
    assert valid(admin.spend_limit.retrieve()).threshold_amount == 10**9
    assert valid(admin.spend_limit.delete()).deleted


def test_spend_alerts_are_kept_changed_and_removed(admin: Any) -> None:
    channel = {"type": "email", "recipients": ["ops@example.com"]}
    made = admin.spend_alerts.create(
        currency="USD", interval="month", threshold_amount=500, notification_channel=channel
    )
    assert valid(made).notification_channel.recipients == ["ops@example.com"]
    changed = admin.spend_alerts.update(
        made.id,
        currency="USD",
        interval="month",
        threshold_amount=700,
        notification_channel=channel,
    )
    assert valid(changed).threshold_amount == 700
    assert [alert.id for alert in valid_page(admin.spend_alerts.list())] == [made.id]
    assert valid(admin.spend_alerts.delete(made.id)).deleted
    project = admin.projects.create(name="Alerted").id
    theirs = admin.projects.spend_alerts.create(
        project, currency="USD", interval="month", threshold_amount=1, notification_channel=channel
    )
    assert valid(theirs).object == "project.spend_alert"


def test_usage_and_costs_are_buckets_of_the_ledger(admin: Any, live: Live) -> None:
    now = live.platform.now()
    found = admin.usage.completions(
        start_time=now - 3 * DAY_S, bucket_width="1d", group_by=["model", "project_id"]
    )
    assert len(found.data) == 4
    assert not found.has_more
    costs = admin.usage.costs(start_time=now - 10 * DAY_S, limit=7, group_by=["line_item"])
    assert (len(costs.data), costs.has_more) == (7, True)
    rest = admin.usage.costs(start_time=now - 10 * DAY_S, limit=7, page=costs.next_page)
    assert (len(rest.data), rest.has_more) == (4, False)
    record_embedding(live.platform, first_caller(live.platform), "req_e", "encoder", 7)
    found = admin.usage.embeddings(start_time=now - 60, bucket_width="1m", group_by=["model"])
    lines = [line for bucket in found.data for line in bucket.results]
    assert [(line.model, line.input_tokens, line.num_model_requests) for line in lines] == [
        ("encoder", 7, 1)
    ]
    with pytest.raises(openai.NotFoundError, match="not offered"):
        admin.usage.images(start_time=now)
    with pytest.raises(openai.BadRequestError, match="after it starts"):
        admin.usage.completions(start_time=now, end_time=month_of(now)[1] - 1)


def test_lines_of_batches_are_counted_apart_from_requests_of_their_own(
    admin: Any, live: Live
) -> None:
    now = live.platform.now()
    caller = first_caller(live.platform)
    tag = usage_tag(caller, "batched")
    for number, more in enumerate(({}, {"batch": "batch_1"}, {"batch": "batch_1"})):
        record = UsageRecord(f"req_g{number}", now, BASE, None, 7, 0, 1, "finished", tag | more)
        record_inference(live.platform, [record])

    def lines(**asked: Any) -> list[tuple[Any, ...]]:
        found = admin.usage.completions(start_time=now - 60, models=["batched"], **asked)
        told = [valid(line) for bucket in found.data for line in bucket.results]
        return sorted((line.batch, line.service_tier, line.input_tokens) for line in told)

    both = ["batch", "service_tier"]
    assert lines(group_by=both) == [(False, "default", 7), (True, "default", 14)]
    assert lines(batch=True) == [(None, None, 14)]
    assert lines(batch=False) == [(None, None, 7)]
    for asked in ({"group_by": "batch"}, {"batch": "true"}, {"group_by": "service_tier"}):
        with pytest.raises(openai.BadRequestError, match="completions alone"):
            admin.usage.embeddings(start_time=now, extra_query=asked)


def test_a_request_of_several_prompts_is_one_request_with_all_of_its_tokens(
    admin: Any, live: Live
) -> None:
    now = live.platform.now()
    tag = usage_tag(first_caller(live.platform), "prompted")
    for id in ("req_p", "req_p-echo", "req_p-1", "req_p-1-echo", "req_q"):
        record = UsageRecord(id, now, BASE, None, 3, 0, 1, "finished", tag)
        record_inference(live.platform, [record])
    found = admin.usage.completions(start_time=now - 60, models=["prompted"])
    (line,) = [line for bucket in found.data for line in bucket.results]
    assert (line.num_model_requests, line.input_tokens, line.output_tokens) == (2, 15, 5)


def test_moderations_are_counted_by_key_and_cost_nothing(
    admin: Any, client: openai.OpenAI, live: Live
) -> None:
    client.moderations.create(input=["one two", "three"])
    client.moderations.create(input="four")
    now = live.platform.now()
    groups = ["project_id", "api_key_id", "model"]
    found = admin.usage.moderations(start_time=now - 60, bucket_width="1h", group_by=groups)
    (line,) = [line for bucket in found.data for line in bucket.results]
    caller = first_caller(live.platform)
    assert (line.project_id, line.api_key_id) == (caller.project_id, caller.key_id)
    assert (line.input_tokens, line.num_model_requests) == (4, 2)
    assert line.model == "afina-moderation-7"
    costs = admin.usage.costs(start_time=now - 60, group_by=["line_item"])
    free = [one for bucket in costs.data for one in bucket.results if "moderation" in one.line_item]
    assert [(one.amount.value, one.quantity) for one in free] == [(0.0, 4.0)]


def test_the_audit_log_tells_who_changed_what(admin: Any, live: Live) -> None:
    project = admin.projects.create(name="Watched")
    admin.projects.update(project.id, name="Watched closely")
    log = admin.audit_logs.list(project_ids=[project.id], limit=100)
    assert [entry.type for entry in log.data] == ["project.updated", "project.created"]
    first = log.data[-1]
    assert first.actor.api_key.id
    assert first.project_created.id == project.id
    only = admin.audit_logs.list(event_types=["project.created"], project_ids=[project.id])
    assert [entry.id for entry in only.data] == [first.id]
    since = admin.audit_logs.list(effective_at={"gt": live.platform.now() + 60})
    assert since.data == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/organization/certificates"),
        ("GET", "/v1/organization/groups"),
        ("POST", "/v1/organization/roles"),
        ("GET", "/v1/organization/data_retention"),
        ("GET", "/v1/organization/usage/images"),
        ("GET", "/v1/organization/projects/proj_x/model_permissions"),
        ("GET", "/v1/projects/proj_x/roles"),
    ],
)
def test_the_other_operations_answer_a_plain_404(live: Live, method: str, path: str) -> None:
    answer = live.http.request(method, path)
    assert answer.status_code == 404
    assert "not offered" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "projects/{}",
        "projects/{}/api_keys",
        "projects/{}/service_accounts",
        "projects/{}/users",
        "projects/{}/rate_limits",
        "projects/{}/spend_limit",
        "projects/{}/spend_alerts",
        "users/{}",
        "admin_api_keys/{}",
        "spend_alerts/{}",
    ],
)
def test_an_unknown_id_is_a_404_everywhere(live: Live, path: str) -> None:
    answer = live.http.get(f"/v1/organization/{path.format('proj_nobody')}")
    assert answer.status_code == 404, answer.text
