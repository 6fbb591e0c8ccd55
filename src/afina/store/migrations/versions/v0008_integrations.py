"""Jobs say which trackers are told their metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; jobs from before told nobody."""
    op.add_column("jobs", sa.Column("integrations", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """The older version never knew this column; a backup goes back."""
    raise NotImplementedError
