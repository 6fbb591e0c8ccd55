"""What the tenant matrix asks: every operation with the kinds of the ids that it takes, and a world
of objects to ask for.

`OPERATIONS` must name every operation of the OpenAPI document, and `FIELDS` every field of a query
or body that can hold an id: a new one without its row here fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from tests.contract.live import BASE, Live
from tests.platforms import ROW, publish

from afina.domain.jobs import Job, JobStatus
from afina.service import webhooks
from afina.service.jobs import JobRequest, create_job
from afina.service.keys import authenticate
from afina.store import jobs, leases

BOUNDARY: Final = "----tenants"
_ALERT: Final = {
    "currency": "USD",
    "interval": "month",
    "threshold_amount": 5,
    "notification_channel": {"type": "email", "recipients": ["ops@example.com"]},
}
_LIMIT: Final = {"currency": "USD", "interval": "month", "threshold_amount": 10**9}
_JOB: Final = {"model": BASE, "training_file": "file-nothing"}
_CHAT: Final = {"model": BASE, "messages": [{"role": "user", "content": "q"}]}


@dataclass(frozen=True)
class Operation:
    """Which kind of object each id in the path names, and a body that is right otherwise."""

    ids: dict[str, str] = field(default_factory=dict)
    body: object = None
    query: str = ""


def _of(*ids: tuple[str, str], body: object = None, query: str = "") -> Operation:
    return Operation(dict(ids), body, query)


_COMPLETION = ("completion_id", "completion")
_RESPONSE = ("response_id", "response")
_FILE = ("file_id", "file")
_UPLOAD = ("upload_id", "upload")
_BATCH = ("batch_id", "batch")
_MODEL = ("model", "model")
_ENDPOINT = ("webhook_endpoint_id", "endpoint")
_OWN_JOB = ("job_id", "job")
_ALIAS = ("name", "alias")
_PROJECT = ("project_id", "project")
_USER = ("user_id", "user")
_ACCOUNT = ("account_id", "account")

OPERATIONS: Final[dict[str, Operation]] = {
    "GET /v1/chat/completions": _of(),
    "POST /v1/chat/completions": _of(body=_CHAT),
    "GET /v1/chat/completions/{completion_id}": _of(_COMPLETION),
    "POST /v1/chat/completions/{completion_id}": _of(_COMPLETION, body={"metadata": {"a": "b"}}),
    "DELETE /v1/chat/completions/{completion_id}": _of(_COMPLETION),
    "GET /v1/chat/completions/{completion_id}/messages": _of(_COMPLETION),
    "POST /v1/responses": _of(body={"model": BASE, "input": "q"}),
    "POST /v1/responses/input_tokens": _of(body={"model": BASE, "input": "q"}),
    "GET /v1/responses/{response_id}": _of(_RESPONSE),
    "DELETE /v1/responses/{response_id}": _of(_RESPONSE),
    "POST /v1/responses/{response_id}/cancel": _of(_RESPONSE),
    "GET /v1/responses/{response_id}/input_items": _of(_RESPONSE),
    "POST /v1/completions": _of(body={"model": BASE, "prompt": "q"}),
    "POST /v1/embeddings": _of(body={"model": BASE, "input": "q"}),
    "POST /v1/moderations": _of(body={"input": "q"}),
    "POST /v1/afina/distill": _of(body={}),
    "GET /v1/files": _of(),
    "POST /v1/files": _of(body=b"file"),
    "GET /v1/files/{file_id}": _of(_FILE),
    "DELETE /v1/files/{file_id}": _of(_FILE),
    "GET /v1/files/{file_id}/content": _of(_FILE),
    "POST /v1/uploads": _of(
        body={"bytes": 5, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "user_data"}
    ),
    "POST /v1/uploads/{upload_id}/parts": _of(_UPLOAD, body=b"data"),
    "POST /v1/uploads/{upload_id}/complete": _of(_UPLOAD, body={"part_ids": ["part_nothing"]}),
    "POST /v1/uploads/{upload_id}/cancel": _of(_UPLOAD),
    "GET /v1/batches": _of(),
    "POST /v1/batches": _of(
        body={
            "input_file_id": "file-nothing",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
    ),
    "GET /v1/batches/{batch_id}": _of(_BATCH),
    "POST /v1/batches/{batch_id}/cancel": _of(_BATCH),
    "GET /v1/fine_tuning/checkpoints/{model}/permissions": _of(_MODEL),
    "POST /v1/fine_tuning/checkpoints/{model}/permissions": _of(
        _MODEL, body={"project_ids": ["proj_nothing"]}
    ),
    "DELETE /v1/fine_tuning/checkpoints/{model}/permissions/{permission_id}": _of(
        _MODEL, ("permission_id", "permission")
    ),
    "GET /v1/afina/aliases": _of(),
    "POST /v1/afina/aliases": _of(body={"name": "a", "target": "ft:a:b::12345678"}),
    "GET /v1/afina/aliases/{name}": _of(_ALIAS),
    "DELETE /v1/afina/aliases/{name}": _of(_ALIAS),
    "POST /v1/afina/aliases/{name}/back": _of(_ALIAS),
    "GET /v1/webhook_event_types": _of(),
    "GET /v1/webhook_endpoints": _of(),
    "POST /v1/webhook_endpoints": _of(
        body={
            "name": "mine",
            "url": "https://example.com/hook",
            "event_types": ["batch.completed"],
        }
    ),
    "GET /v1/webhook_endpoints/{webhook_endpoint_id}": _of(_ENDPOINT),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}": _of(_ENDPOINT, body={"name": "other"}),
    "DELETE /v1/webhook_endpoints/{webhook_endpoint_id}": _of(_ENDPOINT),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret": _of(_ENDPOINT, body={}),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/test": _of(
        _ENDPOINT, body={"event_type": "batch.completed"}
    ),
    "GET /v1/afina/webhook_deliveries": _of(),
    "POST /v1/afina/webhook_deliveries/{delivery_id}/redeliver": _of(("delivery_id", "delivery")),
    "GET /v1/fine_tuning/jobs": _of(),
    "POST /v1/fine_tuning/jobs": _of(body=_JOB),
    "GET /v1/fine_tuning/jobs/{job_id}": _of(_OWN_JOB),
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": _of(_OWN_JOB),
    "POST /v1/fine_tuning/jobs/{job_id}/pause": _of(_OWN_JOB),
    "POST /v1/fine_tuning/jobs/{job_id}/resume": _of(_OWN_JOB),
    "GET /v1/fine_tuning/jobs/{job_id}/events": _of(_OWN_JOB),
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": _of(_OWN_JOB),
    "POST /v1/afina/jobs/estimate": _of(body=_JOB),
    "DELETE /v1/afina/jobs/{job_id}": _of(_OWN_JOB),
    "GET /v1/models": _of(),
    "GET /v1/models/{model}": _of(_MODEL),
    "DELETE /v1/models/{model}": _of(_MODEL),
    "GET /v1/afina/models/{model}": _of(_MODEL),
    "GET /v1/afina/models/{model}/card": _of(_MODEL),
    "POST /v1/afina/models/{model}/gate": _of(_MODEL, body={}),
    "POST /v1/afina/models/{model}/release": _of(_MODEL),
    "POST /v1/afina/models/{model}/hold": _of(_MODEL),
    "GET /v1/afina/files-of/{model}": _of(_MODEL, query="?file=adapter_config.json"),
    "GET /v1/afina/usage": _of(),
    "GET /v1/afina/ledger": _of(),
    "GET /v1/afina/keys": _of(),
    "POST /v1/afina/keys": _of(body={"name": "another"}),
    "DELETE /v1/afina/keys/{key_id}": _of(("key_id", "key")),
    "GET /v1/afina/bases": _of(),
    "GET /v1/afina/export": _of(),
    "GET /v1/organization/projects": _of(),
    "POST /v1/organization/projects": _of(body={"name": "another"}),
    "GET /v1/organization/projects/{project_id}": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}": _of(_PROJECT, body={"name": "renamed"}),
    "POST /v1/organization/projects/{project_id}/archive": _of(_PROJECT),
    "GET /v1/organization/invites": _of(),
    "POST /v1/organization/invites": _of(body={"email": "bo@example.com", "role": "reader"}),
    "GET /v1/organization/invites/{invite_id}": _of(("invite_id", "user")),
    "DELETE /v1/organization/invites/{invite_id}": _of(("invite_id", "user")),
    "GET /v1/organization/users": _of(),
    "GET /v1/organization/users/{user_id}": _of(_USER),
    "POST /v1/organization/users/{user_id}": _of(_USER, body={"role": "owner"}),
    "DELETE /v1/organization/users/{user_id}": _of(_USER),
    "GET /v1/organization/projects/{project_id}/users": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}/users": _of(
        _PROJECT, body={"role": "member", "email": "nobody@example.com"}
    ),
    "GET /v1/organization/projects/{project_id}/users/{user_id}": _of(_PROJECT, _USER),
    "POST /v1/organization/projects/{project_id}/users/{user_id}": _of(
        _PROJECT, _USER, body={"role": "owner"}
    ),
    "DELETE /v1/organization/projects/{project_id}/users/{user_id}": _of(_PROJECT, _USER),
    "GET /v1/organization/admin_api_keys": _of(),
    "POST /v1/organization/admin_api_keys": _of(body={"name": "another"}),
    "GET /v1/organization/admin_api_keys/{key_id}": _of(("key_id", "admin_key")),
    "DELETE /v1/organization/admin_api_keys/{key_id}": _of(("key_id", "admin_key")),
    "GET /v1/organization/projects/{project_id}/api_keys": _of(_PROJECT),
    "GET /v1/organization/projects/{project_id}/api_keys/{key_id}": _of(
        _PROJECT, ("key_id", "account_key")
    ),
    "POST /v1/organization/projects/{project_id}/api_keys/{key_id}": _of(
        _PROJECT, ("key_id", "account_key"), body={"scopes": ["api.all.read"]}
    ),
    "DELETE /v1/organization/projects/{project_id}/api_keys/{key_id}": _of(
        _PROJECT, ("key_id", "account_key")
    ),
    "GET /v1/organization/projects/{project_id}/service_accounts": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}/service_accounts": _of(
        _PROJECT, body={"name": "another"}
    ),
    "GET /v1/organization/projects/{project_id}/service_accounts/{account_id}": _of(
        _PROJECT, _ACCOUNT
    ),
    "POST /v1/organization/projects/{project_id}/service_accounts/{account_id}": _of(
        _PROJECT, _ACCOUNT, body={"name": "renamed"}
    ),
    "DELETE /v1/organization/projects/{project_id}/service_accounts/{account_id}": _of(
        _PROJECT, _ACCOUNT
    ),
    "POST /v1/organization/projects/{project_id}/service_accounts/{account_id}/api_keys": _of(
        _PROJECT, _ACCOUNT, body={"name": "another"}
    ),
    "GET /v1/organization/projects/{project_id}/rate_limits": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}/rate_limits/{limit_id}": _of(
        _PROJECT, ("limit_id", "limit"), body={"max_requests_per_1_minute": 1}
    ),
    "GET /v1/organization/spend_limit": _of(),
    "POST /v1/organization/spend_limit": _of(body=_LIMIT),
    "DELETE /v1/organization/spend_limit": _of(),
    "GET /v1/organization/projects/{project_id}/spend_limit": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}/spend_limit": _of(_PROJECT, body=_LIMIT),
    "DELETE /v1/organization/projects/{project_id}/spend_limit": _of(_PROJECT),
    "GET /v1/organization/spend_alerts": _of(),
    "POST /v1/organization/spend_alerts": _of(body=_ALERT),
    "GET /v1/organization/spend_alerts/{alert_id}": _of(("alert_id", "alert")),
    "POST /v1/organization/spend_alerts/{alert_id}": _of(("alert_id", "alert"), body=_ALERT),
    "DELETE /v1/organization/spend_alerts/{alert_id}": _of(("alert_id", "alert")),
    "GET /v1/organization/projects/{project_id}/spend_alerts": _of(_PROJECT),
    "POST /v1/organization/projects/{project_id}/spend_alerts": _of(_PROJECT, body=_ALERT),
    "GET /v1/organization/projects/{project_id}/spend_alerts/{alert_id}": _of(
        _PROJECT, ("alert_id", "project_alert")
    ),
    "POST /v1/organization/projects/{project_id}/spend_alerts/{alert_id}": _of(
        _PROJECT, ("alert_id", "project_alert"), body=_ALERT
    ),
    "DELETE /v1/organization/projects/{project_id}/spend_alerts/{alert_id}": _of(
        _PROJECT, ("alert_id", "project_alert")
    ),
    "GET /v1/organization/usage/completions": _of(query="?start_time=1"),
    "GET /v1/organization/usage/embeddings": _of(query="?start_time=1"),
    "GET /v1/organization/usage/moderations": _of(query="?start_time=1"),
    "GET /v1/organization/costs": _of(query="?start_time=1"),
    "GET /v1/organization/audit_logs": _of(),
    "GET /v1/afina/watch": _of(),
    "POST /v1/afina/watch/{key_id}/release": _of(("key_id", "key")),
    "GET /metrics": _of(),
}

OPEN: Final = {"GET /health"}
"""Operations that need no key and tell nothing of anybody."""

ADMIN_ONLY: Final = re.compile(
    r"\S+ (/v1/organization|/v1/fine_tuning/checkpoints|/v1/afina/watch|/metrics)"
)
"""Operations for keys that manage an organization."""

FIELDS: Final[dict[str, str]] = {
    "GET /v1/chat/completions model": "model",
    "GET /v1/chat/completions after": "completion",
    "POST /v1/chat/completions model": "model",
    "GET /v1/chat/completions/{completion_id}/messages after": "completion",
    "POST /v1/responses model": "model",
    "POST /v1/responses previous_response_id": "response",
    "POST /v1/responses/input_tokens model": "model",
    "POST /v1/responses/input_tokens previous_response_id": "response",
    "GET /v1/responses/{response_id}/input_items after": "response",
    "POST /v1/completions model": "model",
    "POST /v1/embeddings model": "model",
    "POST /v1/moderations model": "model",
    "POST /v1/afina/distill model": "model",
    "POST /v1/afina/aliases target": "model",
    "GET /v1/files after": "file",
    "POST /v1/uploads/{upload_id}/complete part_ids": "part",
    "GET /v1/batches after": "batch",
    "POST /v1/batches input_file_id": "file",
    "GET /v1/fine_tuning/checkpoints/{model}/permissions project_id": "project",
    "GET /v1/fine_tuning/checkpoints/{model}/permissions after": "permission",
    "POST /v1/fine_tuning/checkpoints/{model}/permissions project_ids": "project",
    "GET /v1/webhook_endpoints after": "endpoint",
    "GET /v1/afina/webhook_deliveries after": "delivery",
    "GET /v1/fine_tuning/jobs after": "job",
    "POST /v1/fine_tuning/jobs model": "model",
    "POST /v1/fine_tuning/jobs training_file": "file",
    "POST /v1/fine_tuning/jobs validation_file": "file",
    "POST /v1/afina/jobs/estimate model": "model",
    "POST /v1/afina/jobs/estimate training_file": "file",
    "POST /v1/afina/jobs/estimate validation_file": "file",
    "GET /v1/fine_tuning/jobs/{job_id}/events after": "event",
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints after": "checkpoint",
    "GET /v1/afina/ledger after": "ledger",
    "GET /v1/organization/projects after": "project",
    "GET /v1/organization/invites after": "user",
    "POST /v1/organization/invites projects.[].id": "project",
    "GET /v1/organization/users after": "user",
    "POST /v1/organization/projects/{project_id}/users user_id": "user",
    "GET /v1/organization/projects/{project_id}/users after": "user",
    "GET /v1/organization/admin_api_keys after": "admin_key",
    "GET /v1/organization/projects/{project_id}/api_keys after": "account_key",
    "GET /v1/organization/projects/{project_id}/service_accounts after": "account",
    "GET /v1/organization/spend_alerts after": "alert",
    "GET /v1/organization/spend_alerts before": "alert",
    "GET /v1/organization/projects/{project_id}/spend_alerts after": "project_alert",
    "GET /v1/organization/projects/{project_id}/spend_alerts before": "project_alert",
    "GET /v1/organization/usage/completions project_ids": "project",
    "GET /v1/organization/usage/completions api_key_ids": "key",
    "GET /v1/organization/usage/completions user_ids": "user",
    "GET /v1/organization/usage/completions models": "model",
    "GET /v1/organization/usage/embeddings project_ids": "project",
    "GET /v1/organization/usage/embeddings api_key_ids": "key",
    "GET /v1/organization/usage/embeddings user_ids": "user",
    "GET /v1/organization/usage/embeddings models": "model",
    "GET /v1/organization/usage/moderations project_ids": "project",
    "GET /v1/organization/usage/moderations api_key_ids": "key",
    "GET /v1/organization/usage/moderations user_ids": "user",
    "GET /v1/organization/usage/moderations models": "model",
    "GET /v1/organization/costs project_ids": "project",
    "GET /v1/organization/costs api_key_ids": "key",
    "GET /v1/organization/costs user_ids": "user",
    "GET /v1/organization/audit_logs project_ids": "project",
    "GET /v1/organization/audit_logs actor_ids": "key",
    "GET /v1/organization/audit_logs resource_ids": "file",
    "GET /v1/organization/audit_logs after": "audit",
    "GET /v1/organization/audit_logs before": "audit",
}

NO_IDS: Final = re.compile(
    r"""
    .*\ expires_after | .*\ output_expires_after      # a time, not a cursor
    | POST\ /v1/files\ file                           # the bytes themselves
    | .*\ external_key_id | .*\ role_id               # refused by name
    | .*\ (messages|input)\.\[\]\..*                  # the chat's own marks; files in it are refused
    | GET\ /v1/responses/\{response_id\}\ starting_after   # a number
    | .*/rate_limits\ (after|before)                  # ids are the bases' names, the same for all
    | GET\ /v1/afina/files-of/\{model\}\ file         # a name within the model
    """,
    re.VERBOSE,
)
"""Fields whose names look like an id's and which hold none."""

_LOOKS_LIKE_AN_ID: Final = re.compile(r"(^|[_.])(id|ids|file|model|models|after|before|target)$")


def id_fields(document: dict[str, Any]) -> Iterator[str]:
    """Every field of every query and body that may hold an id, as `METHOD path field`."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                names |= set(_properties(content["schema"], schemas, "", ()))
            for name in sorted(names):
                shown = f"{method.upper()} {path} {name}"
                if _LOOKS_LIKE_AN_ID.search(name) and not NO_IDS.fullmatch(shown):
                    yield shown


def _properties(
    schema: dict[str, Any], schemas: dict[str, Any], before: str, seen: tuple[str, ...]
) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name in seen:
            return
        seen, schema = (*seen, name), schemas[name]
    for name, inner in schema.get("properties", {}).items():
        yield before + name
        yield from _properties(inner, schemas, f"{before}{name}.", seen)
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _properties(branch, schemas, before, seen)
    if "items" in schema:
        yield from _properties(schema["items"], schemas, f"{before}[].", seen)


def form(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A multipart body with the bytes in the field `name`."""
    purpose = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        if name == "file"
        else ""
    )
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jsonl"\r\n\r\n'
    )
    body = (purpose + head).encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


class Asker:
    """Asks with one key, or with none; with `admin_key` where an operation is for admins alone."""

    def __init__(self, live: Live, key: str | None, admin_key: str | None = None) -> None:
        self.key = key or ""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.http = httpx2.Client(base_url=live.url, headers=headers, trust_env=False, timeout=30)
        self._admin = {} if admin_key is None else {"authorization": f"Bearer {admin_key}"}

    def ask(
        self, operation: str, ids: dict[str, str], body: object = None, query: str = ""
    ) -> httpx2.Response:
        """The operation with these ids in its path; without `body`, the one of its row."""
        row = OPERATIONS[operation]
        method, path = operation.split(" ")
        filled = path.format(**{name: ids[kind] for name, kind in row.ids.items()})
        filled += row.query + query
        body = row.body if body is None else body
        headers = self._admin if ADMIN_ONLY.match(operation) else {}
        if isinstance(body, bytes):
            content, kind = form(body.decode(), b'{"a":1}\n')
            return self.http.request(method, filled, content=content, headers=headers | kind)
        if body is None:
            return self.http.request(method, filled, headers=headers)
        return self.http.request(method, filled, json=body, headers=headers)


def make_world(live: Live, mine: Asker, scratch: Path, name: str) -> dict[str, str]:
    """One object of each kind, made with a key that manages its organization: ids by kind."""

    def make(operation: str, body: object = None) -> Any:
        answer = mine.ask(operation, ids, body)
        assert answer.status_code == 200, (operation, answer.text)
        return answer.json()

    ids: dict[str, str] = {"limit": f"rl-{BASE}", "alias": f"alias-{name}"}
    file = mine.http.post(
        "/v1/files",
        files={"file": ("a.jsonl", ROW * 10)},
        data={"purpose": "fine-tune"},
    )
    ids["file"] = file.json()["id"]
    ids["completion"] = make("POST /v1/chat/completions", {**_CHAT, "store": True})["id"]
    ids["response"] = make("POST /v1/responses")["id"]
    ids["upload"] = make("POST /v1/uploads")["id"]
    ids["part"] = make("POST /v1/uploads/{upload_id}/parts")["id"]
    line = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n'
    batched = mine.http.post(
        "/v1/files", files={"file": ("b.jsonl", line)}, data={"purpose": "batch"}
    ).json()["id"]
    asked = dict(OPERATIONS["POST /v1/batches"].body, input_file_id=batched)  # type: ignore[call-overload]
    ids["batch"] = make("POST /v1/batches", asked)["id"]
    ids["endpoint"] = make("POST /v1/webhook_endpoints")["id"]
    job = published(live, mine.key, ids["file"], scratch)
    ids |= {"job": job.id, "model": job.fine_tuned_model or ""}
    _deliver(live, mine.key, ids)
    ids["delivery"] = make("GET /v1/afina/webhook_deliveries")["data"][0]["id"]
    ids["event"] = make("GET /v1/fine_tuning/jobs/{job_id}/events")["data"][0]["id"]
    ids["checkpoint"] = make("GET /v1/fine_tuning/jobs/{job_id}/checkpoints")["data"][0]["id"]
    ids["ledger"] = make("GET /v1/afina/ledger")["data"][0]["id"]
    make("POST /v1/afina/aliases", {"name": ids["alias"], "target": ids["model"]})
    ids["key"] = make("POST /v1/afina/keys")["id"]
    return ids | _organization(mine, ids, name)


def _organization(mine: Asker, ids: dict[str, str], name: str) -> dict[str, str]:
    def make(operation: str, body: object = None) -> Any:
        answer = mine.ask(operation, ids, body)
        assert answer.status_code == 200, (operation, answer.text)
        return answer.json()

    ids["project"] = make("POST /v1/organization/projects", {"name": name})["id"]
    ids["permission"] = make(
        "POST /v1/fine_tuning/checkpoints/{model}/permissions", {"project_ids": [ids["project"]]}
    )["data"][0]["id"]
    email = f"{name}@example.com"
    places = [{"id": ids["project"], "role": "member"}]
    ids["user"] = make(
        "POST /v1/organization/invites", {"email": email, "role": "reader", "projects": places}
    )["id"]
    ids["admin_key"] = make("POST /v1/organization/admin_api_keys")["id"]
    ids["account"] = make("POST /v1/organization/projects/{project_id}/service_accounts")["id"]
    ids["account_key"] = make(
        "POST /v1/organization/projects/{project_id}/service_accounts/{account_id}/api_keys"
    )["id"]
    ids["alert"] = make("POST /v1/organization/spend_alerts")["id"]
    ids["project_alert"] = make("POST /v1/organization/projects/{project_id}/spend_alerts")["id"]
    make("POST /v1/organization/projects/{project_id}/spend_limit")
    ids["audit"] = make("GET /v1/organization/audit_logs")["data"][0]["id"]
    return ids


def published(live: Live, key: str, file: str | None, scratch: Path) -> Job:
    """A job of `file` that ended in a model; without a file, the oldest job that waits does."""
    platform = live.platform
    if file is not None:
        create_job(platform, authenticate(platform, key), JobRequest(BASE, file, suffix="bot"))
    with platform.database.write() as tx:
        now = platform.clock.now()
        statuses = [JobStatus.VALIDATING]
        job = leases.claim_job(tx, statuses=statuses, owner="w", now=now, lease_s=60)
        assert job is not None
        jobs.move_job(tx, job.id, job.fence, JobStatus.QUEUED)
        job = jobs.move_job(tx, job.id, job.fence, JobStatus.RUNNING)
    return publish(platform, job, scratch)


def _deliver(live: Live, key: str, ids: dict[str, str]) -> None:
    platform = live.platform
    project = authenticate(platform, key).project_id
    with platform.database.write() as tx:
        assert webhooks.emit(platform, tx, project, "batch.completed", ids["batch"]) == 1
