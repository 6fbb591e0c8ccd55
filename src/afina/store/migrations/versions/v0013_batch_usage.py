"""The ledger knows which answers were lines of a batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what is in the ledger already, nobody knows: it stays null."""
    op.add_column("ledger", sa.Column("batch", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """The older version never knew the column; a backup goes back."""
    raise NotImplementedError
