"""/v1/organization: projects, people, keys, limits, money and the audit log. An admin key, or the
machine's first key, opens these."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from afina.api.routes.organization import audit, keys, limits, people, projects, reports, spending

ROUTERS: Final[tuple[APIRouter, ...]] = (
    projects.router,
    people.router,
    keys.router,
    limits.router,
    spending.router,
    reports.router,
    audit.router,
)
SHAPES: Final[tuple[type[BaseModel], ...]] = (
    *projects.SHAPES,
    *people.SHAPES,
    *keys.SHAPES,
    *limits.SHAPES,
    *spending.SHAPES,
    *reports.SHAPES,
    *audit.SHAPES,
)
