"""Stored chat completions and responses; the moment that a tune's template was written at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables. Tunes from before know no moment: none of their templates asked for one."""
    _stored_completions()
    _completion_labels()
    _responses()
    op.add_column("models", sa.Column("rendered_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """The older version never knew these tables; a backup goes back."""
    raise NotImplementedError


def _stored_completions() -> None:
    op.create_table(
        "stored_completions",
        sa.Column("id", sa.String(length=64), nullable=False),
        *_owners(),
        *_kept(),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        *_owned_by("stored_completions"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_completions")),
    )
    _indexes("stored_completions")


def _completion_labels() -> None:
    op.create_table(
        "completion_labels",
        sa.Column("completion_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["completion_id"],
            ["stored_completions.id"],
            name=op.f("fk_completion_labels_completion_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("completion_id", "key", name=op.f("pk_completion_labels")),
    )
    op.create_index(
        op.f("ix_completion_labels_key_value"), "completion_labels", ["key", "value"], unique=False
    )


def _responses() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String(length=64), nullable=False),
        *_owners(),
        *_kept(),
        sa.Column("previous_id", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("items", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        *_owned_by("responses"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_responses")),
    )
    _indexes("responses")


def _owners() -> list[sa.Column[str]]:
    return [
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
    ]


def _kept() -> list[sa.Column[int] | sa.Column[str]]:
    return [
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
    ]


def _owned_by(table: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f(f"fk_{table}_organization_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f(f"fk_{table}_project_id")
        ),
    ]


def _indexes(table: str) -> None:
    for columns in (["order_key"], ["project_id", "order_key"], ["expires_at"]):
        name = op.f(f"ix_{table}_{'_'.join(columns)}")
        op.create_index(name, table, columns, unique=False)
