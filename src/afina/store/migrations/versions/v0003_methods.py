"""Jobs say how they tune and from which tune they continue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; jobs from before tuned LoRA on a base."""
    op.add_column("jobs", sa.Column("extension", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("parent", sa.String(length=300), nullable=True))
    op.add_column("jobs", sa.Column("parent_manifest", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """The older version never knew these columns; a backup goes back."""
    raise NotImplementedError
