"""What all tables share: the metadata they register in, and columns that repeat."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, Column, ForeignKey, MetaData, String

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def document(name: str, *, nullable: bool = True) -> Column[Any]:
    """A column of JSON; None is SQL's NULL."""
    return Column(name, JSON(none_as_null=True), nullable=nullable)


def owners() -> list[Column[Any]]:
    """Organization and project, which every object has."""
    return [
        Column("organization_id", String(64), ForeignKey("organizations.id"), nullable=False),
        Column("project_id", String(64), ForeignKey("projects.id"), nullable=False),
    ]
