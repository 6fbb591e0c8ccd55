"""Aliases: names of a project's own that mean one of its tuned models, with their history.

`support-bot` may follow the suffix of a job: then each new model of that suffix takes the name over
as it is released, and one command goes back to the one before.
"""

from __future__ import annotations

import re
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.ids import ALIAS
from afina.domain.models import ModelState, TunedModel, plain_suffix
from afina.errors import Conflict, InvalidRequest, ModelNotFound, NotFound
from afina.service import bases
from afina.service.job_request import check_suffix
from afina.service.platform import Platform
from afina.store import aliases, models
from afina.store.aliases import AliasEntry
from afina.store.database import Tx

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")


def set_alias(
    platform: Platform,
    caller: Caller,
    name: str,
    target: str | None = None,
    follows: str | None = None,
) -> AliasEntry:
    """Lets `name` mean `target`, or follow the models of a suffix, or both. Raises
    InvalidRequest, ModelNotFound, and Conflict for a model that is held back."""
    _check_name(platform, name)
    if target is None and follows is None:
        raise InvalidRequest(
            "An alias needs a model to mean or a suffix to follow.", param="target"
        )
    if follows is not None:
        check_suffix(follows, "follows")
        follows = plain_suffix(follows)
    with platform.database.write() as tx:
        if target is not None:
            _require_answering(platform, tx, caller, target)
        else:
            target = _newest_of(tx, caller, follows or "")
        return _append(platform, tx, caller, (name, target, follows, "set"))


def list_aliases(platform: Platform, caller: Caller) -> list[AliasEntry]:
    """What each name of the project means now."""
    with platform.database.read() as tx:
        return aliases.current_aliases(tx, caller.project_id)


def alias_history(platform: Platform, caller: Caller, name: str) -> list[AliasEntry]:
    """What a name has meant, newest first. Raises NotFound."""
    with platform.database.read() as tx:
        found = aliases.alias_history(tx, caller.project_id, name)
    if not found:
        raise _no_alias(name)
    return found


def go_back(platform: Platform, caller: Caller, name: str) -> AliasEntry:
    """Lets the name mean what it meant before and what answers, and follow nothing until it is set
    again. Raises NotFound, InvalidRequest where nothing older is left."""
    with platform.database.write() as tx:
        history = aliases.alias_history(tx, caller.project_id, name)
        if not history:
            raise _no_alias(name)
        for entry in _older(history):
            found = models.get_model(tx, entry, caller.project_id)
            if found is not None and found.state is not ModelState.HELD:
                return _append(platform, tx, caller, (name, entry, None, "back"))
    raise InvalidRequest(
        f"The alias {name} meant no other model before that is still here and answers.",
        param="name",
    )


def remove_alias(platform: Platform, caller: Caller, name: str) -> AliasEntry:
    """The name means nothing any more; its history stays. Raises NotFound."""
    with platform.database.write() as tx:
        current = aliases.current_alias(tx, caller.project_id, name)
        if current is None or (current.target is None and current.follows is None):
            raise _no_alias(name)
        return _append(platform, tx, caller, (name, None, None, "removed"))


def follow_release(platform: Platform, tx: Tx, caller: Caller, model: TunedModel) -> list[str]:
    """Moves the aliases that follow the suffix of a model that has just been released; the names
    that moved. In the transaction that releases it. A checkpoint takes no name over, and an older
    model none from a newer one that answers."""
    suffix = model.name.split(":")[3] if model.name.count(":") >= 3 else ""
    if not suffix or model.step is not None:
        return []
    moved = []
    for entry in aliases.current_aliases(tx, caller.project_id):
        if entry.follows != suffix or entry.target == model.name:
            continue
        now = models.get_model(tx, entry.target, caller.project_id) if entry.target else None
        answers = now is not None and now.state is not ModelState.HELD
        if now is not None and answers and now.created_at > model.created_at:
            continue
        _append(platform, tx, caller, (entry.name, model.name, suffix, "released"))
        moved.append(entry.name)
    return moved


def _older(history: list[AliasEntry]) -> list[str]:
    """What the name meant before, once each, newest first: going back twice goes further back and
    not forward again."""
    behind = [entry.target for entry in history if entry.reason != "back"]
    now = history[0].target
    found = [target for target in dict.fromkeys(behind) if target is not None]
    return found[found.index(now) + 1 :] if now in found else found


def _newest_of(tx: Tx, caller: Caller, suffix: str) -> str | None:
    for model in models.list_models(tx, caller.project_id):
        parts = model.name.split(":")
        released = model.step is None and model.state is ModelState.RELEASED
        if released and len(parts) > 3 and parts[3] == suffix:
            return model.name
    return None


def _require_answering(platform: Platform, tx: Tx, caller: Caller, name: str) -> None:
    found = models.get_model(tx, name, caller.project_id)
    if found is None:
        _refuse_no_tune(platform, aliases.current_alias(tx, caller.project_id, name), name)
        raise ModelNotFound(
            f"The model `{name[:300]}` does not exist or you do not have access to it.",
            param="target",
        )
    if found.state is ModelState.HELD:
        raise Conflict(
            f"The model `{name}` is held back: an alias of it would answer nobody.",
            param="target",
            code="model_held",
            remedy=f"Release it first with `afina models release {name}`, or let the alias follow "
            "its suffix: it then moves when the model is released.",
        )


def _refuse_no_tune(platform: Platform, alias: AliasEntry | None, name: str) -> None:
    """Raises InvalidRequest for a name that means something, and no tuned model by itself."""
    if alias is not None and alias.target is not None:
        raise InvalidRequest(
            f"{name} is an alias itself.",
            param="target",
            code="invalid_value",
            remedy=f"Name the model that it means: {alias.target}.",
        )
    if bases.resolve_base(platform, name) is not None:
        raise InvalidRequest(
            f"{name} is a base model, and an alias means a tuned one.",
            param="target",
            code="invalid_value",
            remedy="A name of a base is set under model_aliases in afina.toml.",
        )


def _append(
    platform: Platform, tx: Tx, caller: Caller, what: tuple[str, str | None, str | None, str]
) -> AliasEntry:
    name, target, follows, reason = what
    entry = AliasEntry(
        id=platform.ids.new(ALIAS),
        project_id=caller.project_id,
        name=name,
        target=target,
        follows=follows,
        reason=reason,
        created_at=platform.now(),
    )
    aliases.append_alias(tx, entry, caller, platform.clock.now())
    return entry


def _check_name(platform: Platform, name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise InvalidRequest(
            "An alias has 1 to 96 characters of a-z, 0-9, dot, underscore and hyphen.",
            param="name",
            code="invalid_value",
        )
    if bases.resolve_base(platform, name) is not None:
        raise InvalidRequest(
            f"{name} is a base model here and cannot mean another one.",
            param="name",
            code="invalid_value",
        )


def _no_alias(name: str) -> NotFound:
    return NotFound(f"There is no alias {name[:100]}.", param="name")
