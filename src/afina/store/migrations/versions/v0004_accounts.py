"""Users, service accounts, kinds and scopes of keys, limits, budgets, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables, those that others refer to first; the first key becomes the root key."""
    _audit_log()
    _spend_alerts()
    _spend_limits()
    _users()
    _project_members()
    _rate_limits()
    _service_accounts()
    _api_keys()
    _ledger()


def downgrade() -> None:
    """The older version never knew these tables; a backup goes back."""
    raise NotImplementedError


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.String(length=64), nullable=True),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("resource_id", sa.String(length=300), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_order_key"), "audit_log", ["order_key"], unique=False)
    op.create_index(
        op.f("ix_audit_log_organization_id_order_key"),
        "audit_log",
        ["organization_id", "order_key"],
        unique=False,
    )


def _spend_alerts() -> None:
    op.create_table(
        "spend_alerts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("holder_id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.Column("recipients", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("subject_prefix", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("raised_month", sa.String(length=7), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_spend_alerts_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spend_alerts")),
    )
    op.create_index(
        op.f("ix_spend_alerts_holder_id_order_key"),
        "spend_alerts",
        ["holder_id", "order_key"],
        unique=False,
    )
    op.create_index(op.f("ix_spend_alerts_order_key"), "spend_alerts", ["order_key"], unique=False)


def _spend_limits() -> None:
    op.create_table(
        "spend_limits",
        sa.Column("holder_id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_spend_limits_organization_id")
        ),
        sa.PrimaryKeyConstraint("holder_id", name=op.f("pk_spend_limits")),
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_users_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint(
            "organization_id", "email", name=op.f("uq_users_organization_id_email")
        ),
    )
    op.create_index(op.f("ix_users_order_key"), "users", ["order_key"], unique=False)


def _project_members() -> None:
    op.create_table(
        "project_members",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_members_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_project_members_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "user_id", name=op.f("pk_project_members")),
    )
    op.create_index(
        op.f("ix_project_members_order_key"), "project_members", ["order_key"], unique=False
    )
    op.create_index(
        op.f("ix_project_members_user_id"), "project_members", ["user_id"], unique=False
    )


def _rate_limits() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_day", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_rate_limits_project_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "model", name=op.f("pk_rate_limits")),
    )


def _service_accounts() -> None:
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_service_accounts_organization_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_service_accounts_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
    )
    op.create_index(
        op.f("ix_service_accounts_order_key"), "service_accounts", ["order_key"], unique=False
    )
    op.create_index(
        op.f("ix_service_accounts_project_id_order_key"),
        "service_accounts",
        ["project_id", "order_key"],
        unique=False,
    )


def _api_keys() -> None:
    op.add_column(
        "api_keys",
        sa.Column("kind", sa.String(length=16), server_default="project", nullable=False),
    )
    op.add_column("api_keys", sa.Column("scopes", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("api_keys", sa.Column("owner_kind", sa.String(length=16), nullable=True))
    op.add_column("api_keys", sa.Column("owner_id", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_api_keys_owner_id"), "api_keys", ["owner_id"], unique=False)
    keys = sa.table("api_keys", sa.column("id"), sa.column("kind"), sa.column("order_key"))
    oldest = sa.select(keys.c.id).order_by(keys.c.order_key).limit(1).scalar_subquery()
    op.execute(keys.update().where(keys.c.id == oldest).values(kind="root"))


def _ledger() -> None:
    op.create_index(
        op.f("ix_ledger_organization_id_time"), "ledger", ["organization_id", "time"], unique=False
    )
