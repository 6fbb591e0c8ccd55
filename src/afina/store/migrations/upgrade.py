"""Runs the migrations inside an open write transaction, so that a kill leaves the old schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def configuration() -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def known_revisions() -> set[str]:
    """All revisions that this version of afina knows."""
    script = ScriptDirectory.from_config(configuration())
    return {revision.revision for revision in script.walk_revisions()}


def upgrade(connection: Connection, target: str = "head") -> None:
    """Upgrades the schema to `target`."""
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, target)
