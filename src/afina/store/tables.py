"""The tables. Portable types only: text, 64-bit integers, floats, booleans and JSON.

Every object names its project and organization from the start. `order_key` is the order of lists
(see `store.ordering`); ids are random and carry none. Times are Unix seconds. A change here needs
a migration; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from afina.store import account_tables as account_tables
from afina.store import answer_tables as answer_tables
from afina.store import gate_tables as gate_tables
from afina.store import wire_tables as wire_tables
from afina.store.schema import METADATA as METADATA
from afina.store.schema import document, owners

ORGANIZATIONS: Final = Table(
    "organizations",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("slug", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

PROJECTS: Final = Table(
    "projects",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), ForeignKey("organizations.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index(None, "organization_id"),
)

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("prefix", String(32), nullable=False),
    Column("last4", String(4), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("kind", String(16), nullable=False, server_default="project"),
    document("scopes"),
    Column("owner_kind", String(16)),
    Column("owner_id", String(64)),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "owner_id"),
)

BLOBS: Final = Table(
    "blobs",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

BLOB_REFS: Final = Table(
    "blob_refs",
    METADATA,
    Column("sha256", String(64), ForeignKey("blobs.sha256"), primary_key=True),
    Column("holder_kind", String(16), primary_key=True),
    Column("holder_id", String(300), primary_key=True),
    Index(None, "holder_kind", "holder_id"),
)

FILES: Final = Table(
    "files",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), ForeignKey("blobs.sha256"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_details", Text),
    Column("expires_at", BigInteger),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "expires_at"),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("key_id", String(64)),
    Column("order_key", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String(24), nullable=False),
    Column("stage", String(32), nullable=False),
    Column("model", String(96), nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("training_file", String(64), nullable=False),
    Column("validation_file", String(64)),
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    document("hyperparameters", nullable=False),
    Column("method", String(32), nullable=False),
    Column("method_given", Boolean, nullable=False),
    document("extension"),
    Column("parent", String(300)),
    Column("parent_manifest", String(64)),
    document("metadata"),
    document("integrations"),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("estimated_finish", BigInteger),
    Column("fine_tuned_model", String(300)),
    Column("trained_tokens", BigInteger),
    document("result_files", nullable=False),
    document("error"),
    Column("wish", String(16)),
    Column("fence", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_owner", String(300)),
    Column("lease_expires_at", Float),
    Column("heartbeat_at", Float),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "status", "order_key"),
    Index(None, "training_file"),
    Index(None, "validation_file"),
)

JOB_LABELS: Final = Table(
    "job_labels",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("project_id", String(64)),
    Column("order_key", BigInteger),
    Index(None, "project_id", "key", "value", "order_key"),
)
"""The pairs of `jobs.metadata` again, with the job's project and place in lists: a page of the jobs
that have a pair is read off the index, however many jobs there are."""

JOB_EVENTS: Final = Table(
    "job_events",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("order_key", BigInteger, nullable=False),
    Column("source", String(16), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(24), nullable=False),
    Column("message", Text, nullable=False),
    document("data", nullable=False),
    document("said"),
    UniqueConstraint("job_id", "order_key"),
    UniqueConstraint("job_id", "source", "sequence"),
)

RUN_OFFSETS: Final = Table(
    "run_offsets",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("offset_bytes", BigInteger, nullable=False),
)

CHECKPOINTS: Final = Table(
    "checkpoints",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("model", String(300), nullable=False),
    Column("step", BigInteger, nullable=False),
    document("metrics", nullable=False),
    UniqueConstraint("job_id", "step"),
)

MODELS: Final = Table(
    "models",
    METADATA,
    Column("name", String(300), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("base_id", String(96), nullable=False),
    Column("manifest", String(64), ForeignKey("blobs.sha256"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("job_id", String(64)),
    Column("step", BigInteger),
    Column("state", String(16), nullable=False),
    document("parity"),
    Column("template_sha256", String(64)),
    Column("rendered_at", BigInteger),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "manifest"),
)

LEDGER: Final = Table(
    "ledger",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64)),
    Column("base_id", String(96), nullable=False),
    Column("model", String(300), nullable=False),
    Column("amount_micro", BigInteger, nullable=False),
    Column("amount_rest_pico", BigInteger, nullable=False),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("batch", Boolean),
    UniqueConstraint("kind", "request_id"),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "project_id", "time"),
    Index(None, "organization_id", "time"),
)
"""Entries outlive what they name, so nothing here is a foreign key. An amount is whole millionths
of a dollar and a rest below one, because picodollars alone overflow 64 bits at 9.2 million."""

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    document("payload", nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("available_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("done_at", BigInteger),
    Column("last_error", Text),
    Index(None, "order_key"),
    Index(None, "done_at", "available_at"),
)

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("route", String(128), primary_key=True),
    Column("name", String(300), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    document("answer", nullable=False),
    Index(None, "expires_at"),
)
