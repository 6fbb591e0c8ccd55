"""The tables of people, programs, limits, budgets and the audit log.

They stand beside `store.tables`, which imports them so that one metadata holds all; the rules are
the same.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from afina.store.schema import METADATA, document, owners

USERS: Final = Table(
    "users",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), ForeignKey("organizations.id"), nullable=False),
    Column("order_key", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", String(320), nullable=False),
    Column("role", String(16), nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Column("subject", String(800)),
    UniqueConstraint("organization_id", "email"),
    Index(None, "order_key"),
    Index(None, "subject", unique=True),
)
"""`subject` is a sign-in provider's issuer and its own id of the user, from the first sign-in."""

PROJECT_MEMBERS: Final = Table(
    "project_members",
    METADATA,
    Column("id", String(64), nullable=False),
    Column("project_id", String(64), ForeignKey("projects.id"), primary_key=True),
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column("role", String(16), nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Index(None, "order_key"),
    Index(None, "user_id"),
)
"""`id` is the user's again: lists are paged by the user's id."""

SERVICE_ACCOUNTS: Final = Table(
    "service_accounts",
    METADATA,
    Column("id", String(64), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index(None, "order_key"),
    Index(None, "project_id", "order_key"),
)

HOLDS: Final = Table(
    "holds",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    *owners(),
    Column("order_key", BigInteger, nullable=False),
    Column("model", String(300), nullable=False),
    Column("tokens_an_epoch", BigInteger, nullable=False),
    Column("epochs", BigInteger, nullable=False),
    Column("begun", BigInteger, nullable=False),
    Index(None, "organization_id", "order_key"),
    Index(None, "order_key"),
)
"""A row for each job that is weighed against budgets and not over: `store.jobs` removes it in the
statement that ends the job."""

RATE_LIMITS: Final = Table(
    "rate_limits",
    METADATA,
    Column("project_id", String(64), ForeignKey("projects.id"), primary_key=True),
    Column("model", String(300), primary_key=True),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("requests_per_day", BigInteger),
)
"""What a project's limits for a model were changed to; NULL is the setting's."""

SPEND_LIMITS: Final = Table(
    "spend_limits",
    METADATA,
    Column("holder_id", String(64), primary_key=True),
    Column("organization_id", String(64), ForeignKey("organizations.id"), nullable=False),
    Column("cents", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""Hard limits by the month; the holder is an organization or a project."""

SPEND_ALERTS: Final = Table(
    "spend_alerts",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("holder_id", String(64), nullable=False),
    Column("organization_id", String(64), ForeignKey("organizations.id"), nullable=False),
    Column("order_key", BigInteger, nullable=False),
    Column("cents", BigInteger, nullable=False),
    document("recipients", nullable=False),
    Column("subject_prefix", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("raised_month", String(7)),
    Index(None, "order_key"),
    Index(None, "holder_id", "order_key"),
)
"""`raised_month`, such as 2026-11, is the last month in which the alert was raised."""

AUDIT_LOG: Final = Table(
    "audit_log",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_key", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64)),
    Column("key_id", String(64)),
    Column("user_id", String(64)),
    Column("type", String(64), nullable=False),
    Column("resource_id", String(300), nullable=False),
    document("data", nullable=False),
    Index(None, "order_key"),
    Index(None, "organization_id", "order_key"),
)
"""Who changed what. Entries outlive what they name, so nothing here is a foreign key."""
