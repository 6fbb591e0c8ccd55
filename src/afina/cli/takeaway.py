"""Taking a tuned model away from a server: its files checked by hash, merged here if asked, with
its card beside them.
"""

from __future__ import annotations

import enum
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from afina.cli.terminal import tell
from afina.domain.manifests import ADAPTER_CONFIG, ADAPTER_GGUF
from afina.errors import Internal, InvalidRequest

if TYPE_CHECKING:
    from afina.cli.client import Client
    from afina.model.gguf_export import Weights
    from afina.service.card_readme import Form
    from afina.settings import Settings


class Format(enum.StrEnum):
    """What `models export` writes."""

    PEFT = "peft"
    MERGED = "merged"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"


def weights_of(format: Format, weights: str | None) -> Weights | None:
    """How a whole GGUF file stores matrices; None for the other formats. Raises InvalidRequest for
    a type that is unknown, or asked of a format that has no choice."""
    if format is not Format.GGUF:
        if weights is not None:
            raise InvalidRequest(
                f"--weights goes with --format gguf alone, not with {format.value}.",
                remedy="Leave it out.",
            )
        return None
    from afina.model.gguf_export import Weights

    try:
        return Weights((weights or Weights.BF16).lower())
    except ValueError:
        known = ", ".join(kind.value for kind in Weights)
        raise InvalidRequest(
            f"There is no type of weights {str(weights)[:40]!r}.", remedy=f"Choose one of {known}."
        ) from None


def export_peft(client: Client, name: str, target: Path) -> list[str]:
    """Write the adapter's files into `target`; returns their names. Of a tune with weights of its
    own they are no adapter, which is said. Raises InvalidRequest for a base and for a folder that
    is not empty."""
    from afina.service.card_readme import Form

    _, files = _tune(client, name)
    _make_empty(target)
    found = _fetch(client, name, files, target)
    if ADAPTER_CONFIG not in files:
        tell(
            f"{name} has weights of its own and no adapter: these files are what it changed, which "
            "PEFT does not read. `--format merged` writes a model that transformers reads."
        )
    return sorted([*found, *_put_card(client, name, Form.STORED, target)])


def export_merged(client: Client, name: str, target: Path, settings: Settings) -> list[str]:
    """Write base and adapter as one model into `target`; the base must be on this machine. The
    card takes the place of the base's README.md, which speaks of another model."""
    from afina.service.card_readme import Form

    _merge(client, name, target, settings)
    _put_card(client, name, Form.WHOLE, target)
    return sorted(path.name for path in target.iterdir())


def _merge(client: Client, name: str, target: Path, settings: Settings) -> None:
    from afina.cli.bases import find_base

    base_id, files = _tune(client, name)
    base = find_base(settings, base_id)
    _make_empty(target)
    from afina.model.merge import merge

    with tempfile.TemporaryDirectory(prefix="afina-") as room:
        adapter = Path(room)
        _fetch(client, name, files, adapter)
        merge(Path(base.path), adapter, target)


def export_gguf(
    client: Client, name: str, target: Path, settings: Settings, weights: Weights
) -> list[str]:
    """Write a base, or base and tune as one model with its card, as a file that llama.cpp runs
    into the folder `target`; the base must be on this machine. What cannot be written is refused
    before anything is merged."""
    from afina.cli.bases import find_base
    from afina.cli.client import segment
    from afina.model.gguf_export import Label, Talk, vet_model, write_model
    from afina.service.card_readme import Form
    from afina.text.renderer import Renderer
    from afina.text.template import read_template

    model = client.get(f"/v1/afina/models/{segment(name)}")
    tuned = model.get("kind") == "tuned"
    base = find_base(settings, str(model["base_id"] if tuned else model["id"]))
    folder = Path(base.path)
    vet_model(folder)
    renderer = Renderer.load(folder)
    talk = Talk(read_template(folder).default, renderer.end_token, renderer.tokenizer.opening_ids)
    label = Label(name, base.licence, {"base": base.id})
    _make_empty(target)
    file = f"{_plain(name)}-{weights.value}.gguf"
    with tempfile.TemporaryDirectory(prefix="afina-") as room:
        if tuned:
            _merge(client, name, Path(room) / "merged", settings)
            folder = Path(room) / "merged"
        write_model(folder, target / file, talk, label, weights, tell)
    if not tuned:
        return [file]
    return sorted([file, *_put_card(client, name, Form.GGUF, target)])


def export_gguf_lora(client: Client, name: str, target: Path) -> list[str]:
    """Write a tune's adapter as llama.cpp reads it beside its base's file; the server makes it."""
    from afina.cli.client import segment
    from afina.service.card_readme import Form

    _tune(client, name)
    _make_empty(target)
    file = f"{_plain(name)}-lora.gguf"
    client.save(f"/v1/afina/files-of/{segment(name)}?file={ADAPTER_GGUF}", target / file)
    return sorted([file, *_put_card(client, name, Form.GGUF_ADAPTER, target)])


def _put_card(client: Client, name: str, form: Form, target: Path) -> list[str]:
    """Write the model's card beside its weights; returns the names of its files."""
    from afina.cli.client import segment
    from afina.service.card_readme import card_files

    files = card_files(client.get(f"/v1/afina/models/{segment(name)}/card"), form)
    for file, text in files.items():
        (target / file).write_bytes(text)
    return list(files)


def _plain(name: str) -> str:
    """A name of a file: colons are no good in it elsewhere."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)


def _tune(client: Client, name: str) -> tuple[str, dict[str, str]]:
    from afina.cli.client import segment

    model = client.get(f"/v1/afina/models/{segment(name)}")
    if model.get("kind") != "tuned":
        raise InvalidRequest(
            f"{name} is a base model; there is nothing tuned to export.",
            remedy="Name a tuned model: `afina models list`.",
        )
    return str(model["base_id"]), dict(model["files"])


def _make_empty(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise InvalidRequest(f"The folder {target} is not empty.", remedy="Name a new one.")


def _fetch(client: Client, name: str, files: dict[str, str], target: Path) -> list[str]:
    from urllib.parse import quote

    from afina.cli.client import segment

    for file, sha256 in sorted(files.items()):
        # A name is one part of a path and nothing else, whatever the server says.
        if Path(file).name != file:
            raise Internal(f"The server named a file {file!r}, which is no plain name.")
        path = target / file
        client.save(f"/v1/afina/files-of/{segment(name)}?file={quote(file)}", path)
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if found != sha256:
            path.unlink()
            raise Internal(f"{file} was damaged on its way (its sha256 differs). Try again.")
    return sorted(files)
