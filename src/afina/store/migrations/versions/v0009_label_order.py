"""Labels of jobs know the job's project and its place in lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Copies both from the jobs, and puts one index in the place of another."""
    op.add_column("job_labels", sa.Column("project_id", sa.String(length=64), nullable=True))
    op.add_column("job_labels", sa.Column("order_key", sa.BigInteger(), nullable=True))
    names = ("project_id", "order_key")
    jobs = sa.table("jobs", sa.column("id"), *map(sa.column, names))
    labels = sa.table("job_labels", sa.column("job_id"), *map(sa.column, names))

    def of_job(name: str) -> sa.ScalarSelect[object]:
        return sa.select(jobs.c[name]).where(jobs.c.id == labels.c.job_id).scalar_subquery()

    op.execute(labels.update().values({name: of_job(name) for name in names}))
    op.drop_index(op.f("ix_job_labels_key_value"), "job_labels")
    op.create_index(
        op.f("ix_job_labels_project_id_key_value_order_key"),
        "job_labels",
        ["project_id", "key", "value", "order_key"],
        unique=False,
    )


def downgrade() -> None:
    """The older version looks for the other index; a backup goes back."""
    raise NotImplementedError
