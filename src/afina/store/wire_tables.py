"""The tables of uploads in parts, webhooks, batches, permissions and aliases.

They stand beside `store.tables`, which imports them so that one metadata holds all; the rules are
the same.
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

from afina.store.schema import METADATA, document, owners

UPLOADS: Final = Table(
    "uploads",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("expires_after_s", BigInteger),
    Column("status", String(16), nullable=False),
    Column("file_id", String(64)),
    Index(None, "order_key"),
    Index(None, "status", "expires_at"),
)

UPLOAD_PARTS: Final = Table(
    "upload_parts",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("upload_id", String(64), ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), ForeignKey("blobs.sha256"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "upload_id"),
    Index(None, "sha256"),
)

WEBHOOK_ENDPOINTS: Final = Table(
    "webhook_endpoints",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    document("event_types", nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("failing_since", BigInteger),
    Column("disabled_at", BigInteger),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
)
"""A signing secret is kept as it is: it signs, so its hash would be of no use."""

WEBHOOK_DELIVERIES: Final = Table(
    "webhook_deliveries",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column(
        "endpoint_id",
        String(64),
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("event_id", String(64), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("available_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status_code", Integer),
    Column("last_error", Text),
    Column("done_at", BigInteger),
    Index(None, "order_key"),
    Index(None, "state", "available_at"),
    Index(None, "endpoint_id", "order_key"),
)

BATCHES: Final = Table(
    "batches",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("key_id", String(64)),
    Column("order_key", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("input_file_id", String(64), nullable=False),
    Column("completion_window", String(16), nullable=False),
    document("metadata"),
    Column("output_expires_after_s", BigInteger),
    Column("model", String(300)),
    document("errors"),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    document("usage"),
    Column("expires_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Column("fence", BigInteger, nullable=False),
    Column("lease_owner", String(300)),
    Column("lease_expires_at", Float),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "status", "order_key"),
    Index(None, "input_file_id"),
)

BATCH_RESULTS: Final = Table(
    "batch_results",
    METADATA,
    Column("batch_id", String(64), ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("ok", Boolean, nullable=False),
    Column("result", Text, nullable=False),
)
"""One row a line of the input, written once; they become the output file and go."""

CHECKPOINT_PERMISSIONS: Final = Table(
    "checkpoint_permissions",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column("model", String(300), ForeignKey("models.name", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(64), ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("model", "project_id"),
    Index(None, "order_key"),
    Index(None, "project_id"),
)

ALIASES: Final = Table(
    "aliases",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("name", String(128), nullable=False),
    Column("target", String(300)),
    Column("follows", String(64)),
    Column("reason", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "order_key"),
    Index(None, "project_id", "name", "order_key"),
)
"""The history of names: the newest row of a name says what it means; no target: nothing."""
