"""What each kind of key and of session may do, declared: every operation of the API and every page
with what it needs, and every role with what it has.

`test_roles.py` walks all of one with all of the other. An operation or a page without its row here
fails, and so does a scope that no role is given.
"""

from __future__ import annotations

from typing import Final

from afina.domain import scopes

OPEN: Final = "nothing"
ORGANIZATION: Final = "organization"

_NEEDS: Final[dict[str, str]] = {
    OPEN: """
        GET /health
        GET /docs
        GET /openapi.json
    """,
    ORGANIZATION: """
        GET /metrics
        GET /v1/afina/watch
        POST /v1/afina/watch/{key_id}/release
        GET /v1/fine_tuning/checkpoints/{model}/permissions
        POST /v1/fine_tuning/checkpoints/{model}/permissions
        DELETE /v1/fine_tuning/checkpoints/{model}/permissions/{permission_id}
        GET /v1/organization/projects
        POST /v1/organization/projects
        GET /v1/organization/projects/{project_id}
        POST /v1/organization/projects/{project_id}
        POST /v1/organization/projects/{project_id}/archive
        GET /v1/organization/invites
        POST /v1/organization/invites
        GET /v1/organization/invites/{invite_id}
        DELETE /v1/organization/invites/{invite_id}
        GET /v1/organization/users
        GET /v1/organization/users/{user_id}
        POST /v1/organization/users/{user_id}
        DELETE /v1/organization/users/{user_id}
        GET /v1/organization/projects/{project_id}/users
        POST /v1/organization/projects/{project_id}/users
        GET /v1/organization/projects/{project_id}/users/{user_id}
        POST /v1/organization/projects/{project_id}/users/{user_id}
        DELETE /v1/organization/projects/{project_id}/users/{user_id}
        GET /v1/organization/admin_api_keys
        POST /v1/organization/admin_api_keys
        GET /v1/organization/admin_api_keys/{key_id}
        DELETE /v1/organization/admin_api_keys/{key_id}
        GET /v1/organization/projects/{project_id}/api_keys
        GET /v1/organization/projects/{project_id}/api_keys/{key_id}
        POST /v1/organization/projects/{project_id}/api_keys/{key_id}
        DELETE /v1/organization/projects/{project_id}/api_keys/{key_id}
        GET /v1/organization/projects/{project_id}/service_accounts
        POST /v1/organization/projects/{project_id}/service_accounts
        GET /v1/organization/projects/{project_id}/service_accounts/{account_id}
        POST /v1/organization/projects/{project_id}/service_accounts/{account_id}
        DELETE /v1/organization/projects/{project_id}/service_accounts/{account_id}
        POST /v1/organization/projects/{project_id}/service_accounts/{account_id}/api_keys
        GET /v1/organization/projects/{project_id}/rate_limits
        POST /v1/organization/projects/{project_id}/rate_limits/{limit_id}
        GET /v1/organization/spend_limit
        POST /v1/organization/spend_limit
        DELETE /v1/organization/spend_limit
        GET /v1/organization/projects/{project_id}/spend_limit
        POST /v1/organization/projects/{project_id}/spend_limit
        DELETE /v1/organization/projects/{project_id}/spend_limit
        GET /v1/organization/spend_alerts
        POST /v1/organization/spend_alerts
        GET /v1/organization/spend_alerts/{alert_id}
        POST /v1/organization/spend_alerts/{alert_id}
        DELETE /v1/organization/spend_alerts/{alert_id}
        GET /v1/organization/projects/{project_id}/spend_alerts
        POST /v1/organization/projects/{project_id}/spend_alerts
        GET /v1/organization/projects/{project_id}/spend_alerts/{alert_id}
        POST /v1/organization/projects/{project_id}/spend_alerts/{alert_id}
        DELETE /v1/organization/projects/{project_id}/spend_alerts/{alert_id}
        GET /v1/organization/usage/completions
        GET /v1/organization/usage/embeddings
        GET /v1/organization/usage/moderations
        GET /v1/organization/costs
        GET /v1/organization/audit_logs
    """,
    "api.model.request": """
        POST /v1/chat/completions
        POST /v1/completions
        POST /v1/embeddings
        POST /v1/moderations
        POST /v1/responses
        POST /v1/responses/input_tokens
    """,
    "api.logs.read": """
        GET /v1/chat/completions
        GET /v1/chat/completions/{completion_id}
        GET /v1/chat/completions/{completion_id}/messages
        GET /v1/responses/{response_id}
        GET /v1/responses/{response_id}/input_items
    """,
    "api.logs.write": """
        POST /v1/chat/completions/{completion_id}
        DELETE /v1/chat/completions/{completion_id}
        DELETE /v1/responses/{response_id}
        POST /v1/responses/{response_id}/cancel
    """,
    "api.files.read": """
        GET /v1/files
        GET /v1/files/{file_id}
        GET /v1/files/{file_id}/content
    """,
    "api.files.write": """
        POST /v1/files
        DELETE /v1/files/{file_id}
        POST /v1/uploads
        POST /v1/uploads/{upload_id}/parts
        POST /v1/uploads/{upload_id}/complete
        POST /v1/uploads/{upload_id}/cancel
    """,
    "api.batch.read": """
        GET /v1/batches
        GET /v1/batches/{batch_id}
    """,
    "api.batch.write": """
        POST /v1/batches
        POST /v1/batches/{batch_id}/cancel
    """,
    "api.webhooks.read": """
        GET /v1/webhook_event_types
        GET /v1/webhook_endpoints
        GET /v1/webhook_endpoints/{webhook_endpoint_id}
        GET /v1/afina/webhook_deliveries
    """,
    "api.webhooks.write": """
        POST /v1/webhook_endpoints
        POST /v1/webhook_endpoints/{webhook_endpoint_id}
        DELETE /v1/webhook_endpoints/{webhook_endpoint_id}
        POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret
        POST /v1/webhook_endpoints/{webhook_endpoint_id}/test
        POST /v1/afina/webhook_deliveries/{delivery_id}/redeliver
    """,
    "api.fine_tuning.jobs.read": """
        GET /v1/fine_tuning/jobs
        GET /v1/fine_tuning/jobs/{job_id}
        GET /v1/fine_tuning/jobs/{job_id}/events
        GET /v1/fine_tuning/jobs/{job_id}/checkpoints
    """,
    "api.fine_tuning.jobs.write": """
        POST /v1/fine_tuning/jobs
        POST /v1/fine_tuning/jobs/{job_id}/cancel
        POST /v1/fine_tuning/jobs/{job_id}/pause
        POST /v1/fine_tuning/jobs/{job_id}/resume
        POST /v1/afina/jobs/estimate
        DELETE /v1/afina/jobs/{job_id}
    """,
    "api.model.read": """
        GET /v1/models
        GET /v1/models/{model}
        GET /v1/afina/models/{model}
        GET /v1/afina/models/{model}/card
        GET /v1/afina/files-of/{model}
        GET /v1/afina/bases
        GET /v1/afina/aliases
        GET /v1/afina/aliases/{name}
    """,
    "api.model.write": """
        DELETE /v1/models/{model}
        POST /v1/afina/models/{model}/gate
        POST /v1/afina/models/{model}/release
        POST /v1/afina/models/{model}/hold
        POST /v1/afina/aliases
        DELETE /v1/afina/aliases/{name}
        POST /v1/afina/aliases/{name}/back
    """,
    "api.usage.read": """
        GET /v1/afina/usage
        GET /v1/afina/ledger
    """,
    "api.keys.read": """
        GET /v1/afina/keys
    """,
    "api.keys.write": """
        POST /v1/afina/keys
        DELETE /v1/afina/keys/{key_id}
    """,
    "api.afina.read": """
        GET /v1/afina/export
    """,
    "api.afina.write": """
        POST /v1/afina/distill
    """,
}

NEEDS: Final[dict[str, str]] = {
    operation.strip(): need
    for need, operations in _NEEDS.items()
    for operation in operations.strip().splitlines()
}
"""What each operation needs."""

PROJECT: Final = frozenset(scopes.KNOWN)
"""All that a project holds."""
NOTHING: Final[frozenset[str]] = frozenset()


def _of_scope(scope: str) -> frozenset[str]:
    if scope == scopes.ALL_READ:
        return frozenset(one for one in PROJECT if one.endswith(".read"))
    return frozenset({scope, scope.removesuffix(".write") + ".read"})


KEYS: Final[dict[str, frozenset[str]]] = {
    "the first key": PROJECT | {ORGANIZATION},
    "an admin key": frozenset({ORGANIZATION}),
    "the project's own key": PROJECT,
    "the key of an owner of the organization": PROJECT,
    "the key of a reader who is an owner of the project": PROJECT,
    "the key of a reader who is a member": PROJECT,
    "the key of a service account that is an owner": PROJECT,
    "the key of a service account that is a member": PROJECT,
    "the key of a service account that is nothing": NOTHING,
    "the key of a service account that is nothing, with a scope": _of_scope("api.files.write"),
    **{f"a key with {scope}": _of_scope(scope) for scope in sorted(scopes.KNOWN)},
}
"""What each key has. A key opens its project; only the first one opens the organization too."""

OUTSIDERS: Final = (
    "no key",
    "a key that never was",
    "a revoked key",
    "an expired key",
    "a key of an archived project",
    "a key of a user who was removed",
    "a key of a service account that was ended",
    "the cookie of a dashboard session",
)
"""Who gets a 401 from all that needs anything."""

_PAGES: Final[dict[str, str]] = {
    OPEN: """
        GET /sign-in
        POST /sign-in
        GET /sign-in/oidc
        GET /sign-in/oidc/callback
        GET /enter
        POST /language
        GET /static/{path:path}
    """,
    ORGANIZATION: """
        POST /settings/projects
        POST /settings/people
        POST /settings/people/{id}/remove
        POST /settings/limits
        POST /settings/budget
    """,
    "a session": """
        POST /sign-out
        GET /
        GET /data
        POST /data
        GET /data/files/{id}/download
        POST /data/files/{id}/delete
        POST /data/files/{id}/open
        GET /data/answers
        POST /data/answers/draft
        POST /data/answers/{id}/delete
        GET /data/{id}
        POST /data/{id}/columns
        GET /data/{id}/rows
        GET /data/{id}/summary
        GET /data/{id}/marks
        GET /data/{id}/lengths
        GET /data/{id}/estimate
        POST /data/{id}/rows/{row}
        POST /data/{id}/drop
        POST /data/{id}/undo
        POST /data/{id}/redo
        POST /data/{id}/save
        POST /data/{id}/delete
        GET /tune
        POST /tune
        POST /tune/estimate
        GET /jobs
        GET /jobs/compare
        GET /jobs/{id}
        GET /jobs/{id}/points
        GET /jobs/{id}/live
        POST /jobs/{id}/cancel
        POST /jobs/{id}/pause
        POST /jobs/{id}/resume
        POST /jobs/{id}/delete
        GET /playground
        GET /playground/about
        POST /playground/answer
        GET /playground/table
        POST /playground/table/prompts
        GET /playground/table/files/{id}
        POST /playground/table/score
        GET /playground/rows
        POST /playground/rows
        GET /models
        GET /models/show
        GET /models/card
        GET /models/file
        POST /models/delete
        POST /models/gate
        POST /models/release
        POST /models/hold
        GET /usage
        GET /usage/export
        GET /usage/cost
        GET /settings
        GET /settings/keys
        GET /settings/webhooks
        GET /settings/projects
        GET /settings/people
        GET /settings/limits
        GET /settings/budget
        POST /settings/keys
        POST /settings/keys/{id}/revoke
        POST /settings/webhooks
        POST /settings/webhooks/{id}/delete
        POST /settings/webhooks/{id}/test
    """,
}
PAGES: Final[dict[str, str]] = {
    page.strip(): need for need, pages in _PAGES.items() for page in pages.strip().splitlines()
}
"""What each page needs of the session that asks for it."""
SESSIONS: Final[dict[str, frozenset[str]]] = {
    "of the first key": frozenset({"a session", ORGANIZATION}),
    "of the project's own key": frozenset({"a session"}),
    "of an owner of the organization whom a provider vouches for": frozenset(
        {"a session", ORGANIZATION}
    ),
    "of a member whom a provider vouches for": frozenset({"a session"}),
}
"""What each session has. Admin keys and restricted keys open none."""
