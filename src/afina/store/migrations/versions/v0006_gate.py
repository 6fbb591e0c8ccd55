"""The gate's reports, and the tally of the abuse watch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables. Models from before were never asked anything."""
    op.create_table(
        "gates",
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("suite", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.Float(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model"], ["models.name"], name=op.f("fk_gates_model_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_gates")),
    )
    op.create_index(op.f("ix_gates_status_available_at"), "gates", ["status", "available_at"])
    op.create_table(
        "watch",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.String(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "project_id", "key_id", "model", "hour", "category", name=op.f("pk_watch")
        ),
    )


def downgrade() -> None:
    """The older version never knew these tables; a backup goes back."""
    raise NotImplementedError
