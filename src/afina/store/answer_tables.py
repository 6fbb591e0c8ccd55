"""Tables of kept answers: stored chat completions and responses.

A kept answer holds what people wrote; it goes with its row, and the row goes when its time is
over. A response knows the one before it by id alone, so that deleting one leaves no copy of it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text

from afina.store.schema import METADATA, document, owners

STORED_COMPLETIONS: Final = Table(
    "stored_completions",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("model", String(300), nullable=False),
    document("metadata", nullable=False),
    document("request", nullable=False),
    document("answer", nullable=False),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "expires_at"),
)

COMPLETION_LABELS: Final = Table(
    "completion_labels",
    METADATA,
    Column(
        "completion_id",
        String(64),
        ForeignKey("stored_completions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value"),
)
"""The pairs of `stored_completions.metadata` again, for filters."""

RESPONSES: Final = Table(
    "responses",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("model", String(300), nullable=False),
    Column("previous_id", String(64)),
    Column("status", String(16), nullable=False),
    document("items", nullable=False),
    document("document", nullable=False),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
    Index(None, "expires_at"),
)
"""`items` are the input's; `document` is the response as the wire shows it."""
