"""What a restricted key may do: scopes under the names that the hosted service uses.

A scope that ends in `.write` includes `.read`; `api.all.read` is every reading. A key without
scopes may do everything in its project.
"""

from __future__ import annotations

from typing import Final

ALL_READ: Final = "api.all.read"
_REQUEST: Final = "api.model.request"
_READS: Final = frozenset({"GET", "HEAD"})

_FAMILIES: Final[tuple[tuple[str, str], ...]] = (
    ("/v1/files", "api.files"),
    ("/v1/uploads", "api.files"),
    ("/v1/fine_tuning", "api.fine_tuning.jobs"),
    ("/v1/models", "api.model"),
    ("/v1/batches", "api.batch"),
    ("/v1/webhook_endpoints", "api.webhooks"),
    ("/v1/webhook_event_types", "api.webhooks"),
    ("/v1/chat/completions", "api.logs"),
    ("/v1/afina/jobs", "api.fine_tuning.jobs"),
    ("/v1/afina/models", "api.model"),
    ("/v1/afina/bases", "api.model"),
    ("/v1/afina/files-of", "api.model"),
    ("/v1/afina/aliases", "api.model"),
    ("/v1/afina/keys", "api.keys"),
    ("/v1/afina/usage", "api.usage"),
    ("/v1/afina/ledger", "api.usage"),
    ("/v1/afina/webhook_deliveries", "api.webhooks"),
    ("/v1/afina", "api.afina"),
)
"""Paths and the family of scopes that guards them, the longest first where they overlap."""

_INFERENCE: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/responses",
    "/v1/responses/input_tokens",
)

KNOWN: Final[frozenset[str]] = frozenset(
    {ALL_READ, _REQUEST}
    | {f"{family}.{verb}" for _, family in _FAMILIES for verb in ("read", "write")}
)
"""Every scope that a key can be given."""


def needed_scope(method: str, path: str) -> str:
    """The scope that a request needs."""
    if any(path.rstrip("/") == route for route in _INFERENCE) and method == "POST":
        return _REQUEST
    verb = "read" if method in _READS else "write"
    for prefix, family in _FAMILIES:
        if path.startswith(prefix):
            return f"{family}.{verb}"
    if path.startswith("/v1/responses"):
        return f"api.logs.{verb}"
    return f"api.afina.{verb}"


def allowed(scopes: tuple[str, ...] | None, needed: str) -> bool:
    """Whether a key with those scopes may do what needs `needed`."""
    if scopes is None or needed in scopes:
        return True
    family, _, verb = needed.rpartition(".")
    if verb != "read":
        return False
    return ALL_READ in scopes or f"{family}.write" in scopes
