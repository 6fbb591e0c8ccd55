"""Alembic's entry: it runs the migrations on the connection that `upgrade` passes."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from afina.store.tables import METADATA


def run(connection: Connection) -> None:
    """Migrates within the transaction that is open already."""
    # Batch mode: SQLite changes a table by copying it, which alembic then does for us.
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    context.run_migrations()


run(context.config.attributes["connection"])
