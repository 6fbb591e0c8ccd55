"""Base models on this machine for commands that need no server: by id, alias or tuned name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afina.errors import ModelNotFound
from afina.settings import STARTER, Settings

if TYPE_CHECKING:
    from afina.domain.models import BaseModel


def local_bases(settings: Settings) -> list[BaseModel]:
    """The base models in the data directory, admitted or not, by id."""
    from afina.model.folder import read_record

    if not settings.models.is_dir():
        return []
    records = (read_record(path) for path in sorted(settings.models.iterdir()) if path.is_dir())
    return [record for record in records if record is not None]


def find_base(settings: Settings, name: str) -> BaseModel:
    """The base that `name` means: its id, an alias, or a tuned model's name. Raises
    ModelNotFound."""
    base_id = name.split(":")[1] if name.startswith("ft:") and ":" in name[3:] else name
    base_id = settings.model_aliases.get(base_id, base_id)
    bases = local_bases(settings)
    for base in bases:
        if base.id == base_id:
            return base
    here = ", ".join(base.id for base in bases) or "none"
    raise ModelNotFound(
        f"There is no base model {base_id} in {settings.models} (here: {here}).",
        remedy=f"Fetch one: `afina models pull {STARTER}`.",
    )


def default_base(settings: Settings) -> BaseModel | None:
    """The base taken where none is named: the starter, else the only one here, else none."""
    bases = local_bases(settings)
    for base in bases:
        if base.id == STARTER:
            return base
    return bases[0] if len(bases) == 1 else None
