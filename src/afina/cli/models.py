"""`afina models`: the bases on this machine and the models tuned from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli import gate
from afina.cli.options import (
    DataOption,
    JsonOption,
    ServerOption,
    YesOption,
    load_settings,
    open_client,
)
from afina.cli.takeaway import Format
from afina.cli.terminal import agreed, at, in_count, print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from afina.domain.models import BaseModel

app = typer.Typer(help="Fetch base models; list, show, export models.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A base or tuned model's name.")]


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ID_OR_FOLDER",
            help="The starter (smollm2-135m-instruct), a folder, or a hub id (owner/name).",
        ),
    ],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a base model to this machine, check it, and measure how fast it trains here. The
    encoder that moderation and embeddings need comes with the first one."""
    from afina.cli.encoders import pull_encoder, with_encoder
    from afina.domain.codec import encode
    from afina.domain.encoders import ENCODER_ID
    from afina.errors import BaseRefused
    from afina.model.pull import pull as pull_base

    settings = load_settings(data)
    if source == ENCODER_ID:
        print_facts({"id": ENCODER_ID, "path": str(pull_encoder(settings))})
        return
    record = pull_base(source, settings.models, tell, settings=settings)
    with_encoder(settings)
    if json:
        print_json(encode(record))
    else:
        print_facts(_base_facts(record))
    if not record.admitted:
        raise BaseRefused(f"{record.id} was not admitted: {record.refusal}")


@app.command("list")
def list_models(
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the models: bases, tuned models and checkpoints; those that are held do not answer."""
    with open_client(data, server) as client:
        found = client.get("/v1/models")["data"]
    if json:
        print_json(found)
        return
    print_table(
        ("model", "owner", "state", "created"),
        ((model["id"], model["owned_by"], _state(model), at(model["created"])) for model in found),
    )


def _state(model: dict[str, Any]) -> str:
    told = model.get("afina") or {}
    state = str(told.get("state", ""))
    return f"{state}, its base is missing" if told.get("base_missing") else state


@app.command()
def show(
    name: NameArgument,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a model: where it comes from, and the proof that it serves what was trained."""
    from afina.cli.client import segment
    from afina.cli.model_facts import flat, tuned_facts

    with open_client(data, server) as client:
        model = client.get(f"/v1/afina/models/{segment(name)}")
    if json:
        print_json(model)
    else:
        print_facts(tuned_facts(model) if model.get("kind") == "tuned" else dict(flat(model)))


@app.command()
def delete(
    name: NameArgument,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a tuned model and its bytes; its job stays."""
    from afina.cli.client import segment

    if not agreed(f"Delete {name} for good?", yes):
        raise typer.Exit(1)
    with open_client(data, server) as client:
        gone = client.delete(f"/v1/models/{segment(name)}")
    if json:
        print_json(gone)
    else:
        tell(f"{name} is deleted.")


@app.command()
def export(
    name: NameArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new or empty folder.")],
    format: Annotated[
        Format,
        typer.Option(
            help="The adapter as PEFT reads it; base and tune as one model for transformers or, "
            "as one file, for llama.cpp; the adapter alone for llama.cpp."
        ),
    ] = Format.PEFT,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="How --format gguf stores matrices: bf16, f16, f32, q8_0, q4_1 or q4_0 [bf16].",
        ),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take a tuned model away: an adapter in PEFT's format, a merged model as transformers reads
    it, or a file that llama.cpp runs. A base can be written as such a file too."""
    from afina.cli import takeaway

    settings = load_settings(data, server)
    stored = takeaway.weights_of(format, weights)
    with open_client(data, server) as client:
        if format is Format.PEFT:
            files = takeaway.export_peft(client, name, to)
        elif format is Format.MERGED:
            files = takeaway.export_merged(client, name, to, settings)
        elif stored is None:
            files = takeaway.export_gguf_lora(client, name, to)
        else:
            files = takeaway.export_gguf(client, name, to, settings, stored)
    if json:
        print_json({"model": name, "format": format.value, "path": str(to), "files": files})
        return
    for file in files:
        print(to / file)


app.command()(gate.card)
app.command("gate")(gate.ask)
app.command()(gate.release)
app.command()(gate.hold)


def _base_facts(record: BaseModel) -> dict[str, str]:
    from afina.cli.model_facts import flat

    facts = {
        "id": record.id,
        "folder": record.path,
        "licence": record.licence or "unknown",
        "architecture": record.architecture,
        "parameters": in_count(record.parameters),
        "context": f"{in_count(record.context_tokens)} tokens",
        "admitted": "yes" if record.admitted else f"no: {record.refusal}",
    }
    return facts | dict(flat(record.capabilities))
