"""`afina models pull`: from a starter, folder or hub id to an admitted base model on this machine.

A folder is built beside the others under a name of its own, vetted, converted to bf16 where need
be, probed, recorded, and only then renamed into place: what stands in DATA/models is whole. This
is the one place that may ask a model hub, and only for an id that the user gave.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.domain.models import BASE_ID, BaseModel, base_slug
from afina.errors import BaseRefused, Unavailable
from afina.model import starter
from afina.model.folder import RECORD, folder_sha256, read_record, vet_folder, write_record
from afina.outside_settings import HubSettings
from afina.settings import Settings

Progress = Callable[[str], None]
_WANTED: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model")
_WANTED_PLAIN: Final = ("LICENSE*", "LICENCE*", "NOTICE*", "README.md")


@dataclass(frozen=True)
class Source:
    """Where a base model comes from and what it will be called."""

    id: str
    hub_id: str | None = None
    folder: Path | None = None
    licence: str | None = None


def resolve_source(name: str) -> Source:
    """What `name` means: the starter's id, a folder, or an id on the hub (`owner/name`)."""
    if name.lower() == starter.ID or name == starter.HUB_ID:
        return Source(starter.ID, hub_id=starter.HUB_ID, licence=starter.LICENCE)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(base_slug(folder.absolute().name), folder=folder.absolute())
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Source(base_slug(name), hub_id=name)
    raise BaseRefused(
        f"{name} is neither the starter ({starter.ID}), nor a folder, nor a hub id (owner/name).",
        remedy="Check the spelling and the path.",
    )


def pull(
    id_or_folder: str,
    models_dir: Path,
    progress: Progress = lambda _: None,
    *,
    settings: Settings | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> BaseModel:
    """Brings a base model into `models_dir` and returns its record; one that is there stays.

    A model that the probe does not admit is recorded with the reason, so that jobs can be refused
    by it.
    """
    source = resolve_source(id_or_folder)
    if not BASE_ID.fullmatch(source.id):
        raise BaseRefused(f"{id_or_folder} gives no usable id for a base model.")
    target = models_dir / source.id
    present = read_record(target) if target.is_dir() else None
    if present is not None:
        progress(f"{source.id} is here already.")
        return present
    settings = settings or Settings()
    if source.folder is None:
        settings.check_online(f"{id_or_folder} cannot be fetched")
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=models_dir) as name:
        scratch = Path(name)
        made = scratch / "model"
        made.mkdir()
        _gather(source, made, scratch, progress, settings.hub)
        vet_folder(made)
        record = _record(source, made, target, clock, progress)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
        write_record(target, record)
    progress(f"{record.id} is ready." if record.admitted else f"{record.id}: {record.refusal}")
    return record


def _gather(
    source: Source, made: Path, scratch: Path, progress: Progress, hub: HubSettings
) -> None:
    if source.id == starter.ID and source.folder is None:
        progress("Fetching the starter model (about 95 MB) and converting it to bf16 …")
        downloads = scratch / "downloads"
        downloads.mkdir()
        starter.fetch_starter(made, downloads, hub.proxy)
        return
    if source.folder is not None:
        progress(f"Copying {source.folder} …")
        vet_folder(source.folder)
        for path in sorted(source.folder.iterdir()):
            if path.is_file() and path.name != RECORD:
                shutil.copy2(path, made / path.name)
        return
    progress(f"Fetching {source.hub_id} from the hub …")
    _fetch_from_hub(source.hub_id or "", made, hub)


def _fetch_from_hub(hub_id: str, made: Path, hub: HubSettings) -> None:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if hub.proxy is not None:
        _go_through(hub.proxy)
        # Its second way of fetching has a client of its own, which would not ask the proxy.
        constants.HF_HUB_DISABLE_XET = True
    try:
        snapshot_download(
            hub_id,
            local_dir=made,
            allow_patterns=[*_WANTED, *_WANTED_PLAIN],
            max_workers=4,
            token=hub.token,
            endpoint=hub.endpoint,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise Unavailable(
            f"{hub_id} could not be fetched: {_first_line(error, hub)}",
            remedy="Check the id and the network; a gated model needs hub.token in afina.toml.",
        ) from None
    shutil.rmtree(made / ".cache", ignore_errors=True)


def _go_through(proxy: str) -> None:
    """Lets the hub's client ask through the proxy, from now on in this process."""
    import httpx2
    from huggingface_hub import set_client_factory

    def client() -> httpx2.Client:
        return httpx2.Client(proxy=proxy, follow_redirects=True, timeout=60.0, trust_env=False)

    set_client_factory(client)


def _first_line(error: Exception, hub: HubSettings) -> str:
    """What went wrong, without a token or a proxy's password."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    for secret in (hub.token, hub.proxy):
        text = text.replace(secret, "…") if secret else text
    return text


def _record(
    source: Source, made: Path, target: Path, clock: Clock, progress: Progress
) -> BaseModel:
    from afina.model.probe import probe

    progress("Checking that it computes here what transformers computes, and how fast …")
    found = probe(made)
    return BaseModel(
        id=source.id,
        path=str(target.absolute()),
        sha256=folder_sha256(made),
        created_at=int(clock.now()),
        hub_id=source.hub_id,
        licence=source.licence,
        architecture=found.architecture,
        parameters=found.parameters,
        context_tokens=found.context_tokens,
        admitted=found.refusal is None,
        refusal=found.refusal,
        capabilities=found.capabilities,
    )
