"""Events of jobs keep what they say by name, so that pages can say it in other languages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; events from before have their English text alone."""
    op.add_column("job_events", sa.Column("said", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """The older version never knew this column; a backup goes back."""
    raise NotImplementedError
