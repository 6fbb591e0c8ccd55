"""Tables of the gate and of the abuse watch."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from afina.store.schema import METADATA, document

GATES: Final = Table(
    "gates",
    METADATA,
    Column(
        "model",
        String(300),
        # Named as its migration named it, against the convention of the others.
        ForeignKey("models.name", name="fk_gates_model_models", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("job_id", String(64), nullable=False),
    Column("policy", String(16), nullable=False),
    Column("suite", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    document("report"),
    Column("note", Text),
    Column("attempts", Integer, nullable=False),
    Column("available_at", Float, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Index(None, "status", "available_at"),
)
"""The gate of each tuned model: `pending`, `done` or `failed`; `available_at` is its lease."""

WATCH: Final = Table(
    "watch",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("model", String(300), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("category", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""How often a key's requests to a model were flagged, by hour and category; never a text. The
category `` (none) counts texts that were looked at, `*` those that were flagged at all, `!` those
that could not be looked at, `~` places that were masked in answers."""

WATCH_STATES: Final = Table(
    "watch_states",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("model", String(300), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("looked_at", BigInteger, nullable=False),
    Column("flagged", BigInteger, nullable=False),
)
"""What was done about a key and a model: `alert`, `block`, `suspend` or `released`, with the tally
that led to it."""
