"""Rows of tuned models and of the checkpoints that jobs kept."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, exists, insert, select

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.models import ModelState, TunedModel
from afina.store.database import Tx
from afina.store.ordering import next_order, values_of
from afina.store.permissions import usable_by
from afina.store.tables import MODELS


def model_of(row: Row[Any]) -> TunedModel:
    """The value that a row holds."""
    held = values_of(row, MODELS)
    held["state"] = ModelState(held["state"])
    return TunedModel(**{name: held[name] for name in TunedModel.__dataclass_fields__})


def insert_model(tx: Tx, model: TunedModel, caller: Caller, now: float) -> None:
    """Adds a tuned model; its manifest's blob is admitted already."""
    values = {name: encode(getattr(model, name)) for name in TunedModel.__dataclass_fields__}
    values |= {
        "organization_id": caller.organization_id,
        "order_key": next_order(tx, MODELS, now),
    }
    tx.execute(insert(MODELS).values(values))


def get_model(tx: Tx, name: str, project_id: str | None = None) -> TunedModel | None:
    """The tuned model, if the project owns it or was given it (any where None is given)."""
    query = _row_by_name(usable=project_id is not None)
    row = tx.execute(query, {"called": name, "project": project_id}).one_or_none()
    return None if row is None else model_of(row)


@functools.cache
def _row_by_name(*, usable: bool) -> Select[Any]:
    """Made once, as in `afina.store.ordering`."""
    query = select(MODELS).where(MODELS.c.name == bindparam("called"))
    return query.where(usable_by(bindparam("project"))) if usable else query


def name_is_taken(tx: Tx, name: str) -> bool:
    """Whether a tuned model of any project has the name."""
    return bool(tx.execute(select(exists().where(MODELS.c.name == name))).scalar())


def list_models(tx: Tx, project_id: str) -> list[TunedModel]:
    """The tuned models and checkpoints that the project owns or was given, newest first."""
    query = select(MODELS).where(usable_by(project_id))
    order = (MODELS.c.order_key.desc(), MODELS.c.name)
    return [model_of(row) for row in tx.execute(query.order_by(*order)).all()]


def list_names(tx: Tx, project_id: str) -> Sequence[Row[str, int, str, str]]:
    """Name, time of creation, base and state of the same, which a thousand models are listed by."""
    query = select(MODELS.c.name, MODELS.c.created_at, MODELS.c.base_id, MODELS.c.state)
    order = (MODELS.c.order_key.desc(), MODELS.c.name)
    return tx.execute(query.where(usable_by(project_id)).order_by(*order)).all()


def manifest_in_use(tx: Tx, manifest: str) -> bool:
    """Whether a model of any project is made of that manifest."""
    return bool(tx.execute(select(exists().where(MODELS.c.manifest == manifest))).scalar())


def jobs_with_models(tx: Tx) -> list[str]:
    """The jobs of all projects that brought models which are here."""
    query = select(MODELS.c.job_id).where(MODELS.c.job_id.is_not(None)).distinct()
    return sorted(tx.execute(query).scalars())


def names_of_job(tx: Tx, job_id: str) -> list[str]:
    """The names of a job's model; not of the checkpoints that it kept."""
    query = select(MODELS.c.name).where(MODELS.c.job_id == job_id, MODELS.c.step.is_(None))
    return sorted(tx.execute(query).scalars())


def manifests_of_job(tx: Tx, job_id: str) -> list[str]:
    """The manifests of the models and checkpoints that a job brought."""
    query = select(MODELS.c.manifest).where(MODELS.c.job_id == job_id).distinct()
    return sorted(tx.execute(query).scalars())


def delete_model_row(tx: Tx, name: str) -> None:
    """Removes the row; the blobs follow after the commit."""
    tx.execute(delete(MODELS).where(MODELS.c.name == name))
