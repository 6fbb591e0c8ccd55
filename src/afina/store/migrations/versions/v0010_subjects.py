"""Users are remembered by their sign-in provider's own ids."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody has come in through a provider yet."""
    op.add_column("users", sa.Column("subject", sa.String(length=800), nullable=True))
    op.create_index(op.f("ix_users_subject"), "users", ["subject"], unique=True)


def downgrade() -> None:
    """The older version never knew the column; a backup goes back."""
    raise NotImplementedError
