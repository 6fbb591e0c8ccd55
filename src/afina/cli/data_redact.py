"""`afina data redact` and `restore`: personal data out of a file, and back with a key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afina.cli.file_bar import file_bar
from afina.cli.options import JsonOption
from afina.cli.terminal import in_count, print_facts, print_json, tell

InputFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file.")]


def redact(
    path: InputFile,
    to: Annotated[Path, typer.Option("--to", metavar="JSONL", help="The file to write.")],
    audit: Annotated[
        Path | None,
        typer.Option(
            "--audit",
            metavar="JSONL",
            help="Write what was taken out: line, field, kind, rule, placeholder; never the value.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only this kind; may be given many times. Default: all."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Make it reversible: the values go into a vault beside the new file, locked with "
            "the key in FILE, which is made where there is none. Keep it.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Replace personal data and secrets with placeholders such as <EMAIL_3>.

    The same value gets the same placeholder in all of the file, so that a tuned model learns the
    place and not the person. Ends with 1 where lines are no text, so that nothing can be found, and
    where the file holds no row.
    """
    from afina.data.hints import conversion_hint
    from afina.data.personal.detect import kinds_named
    from afina.data.personal.redaction import redact_file
    from afina.data.personal.vault import lock, make_key
    from afina.data.targets import check_targets
    from afina.domain.codec import encode

    kinds = kinds_named(kind)
    vault = to.with_name(to.name + ".vault")
    check_targets(path, to, audit, *((key, vault) if key is not None else ()))
    secret = make_key(key) if key is not None else None
    with file_bar("Redacting") as progress:
        report, placeholders = redact_file(
            path, to, kinds=kinds, audit=audit, keep_values=key is not None, progress=progress
        )
    if secret is not None:
        vault.write_bytes(lock(placeholders.values, secret))
    if json:
        print_json(encode(report) | ({"vault": str(vault)} if secret else {}))
        if report.unread:
            raise typer.Exit(1)
        return
    facts = {"rows": f"{in_count(report.rows)}, {in_count(report.rows_changed)} changed"}
    for name, places in sorted(report.places.items()):
        values = in_count(report.values.get(name, 0))
        word = "place" if places == 1 else "places"
        facts[name.replace("_", " ")] = f"{in_count(places)} {word}, {values} different"
    facts["written"] = str(to)
    if secret is not None:
        facts["vault"] = f"{vault}, opens only with {key}"
    print_facts(facts)
    if report.as_text:
        tell(f"{_lines(report.as_text)} no JSON and read as plain text.{_better(path)}")
    tell("Names and addresses of people are not found: no model ships with afina that knows them.")
    if not report.rows:
        tell(f"{path.name} holds no row.")
        raise typer.Exit(1)
    if report.unread:
        hint = conversion_hint(path) or "Save the file as UTF-8."
        tell(
            f"{_lines(report.unread)} no text, line {report.first_unread} the first: "
            f"nothing can be found in them. {hint}"
        )
        raise typer.Exit(1)


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{in_count(count)} lines are"


def _better(path: Path) -> str:
    """Of JSON that stands over many lines: what is escaped in it is no plain text."""
    from afina.data.hints import conversion_hint

    is_json = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    hint = conversion_hint(path) if is_json else None
    return "" if hint is None else f" {hint}"


def restore(
    path: InputFile,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write.")],
    key: Annotated[
        Path, typer.Option("--key", exists=True, dir_okay=False, help="The key's file.")
    ],
    vault: Annotated[
        Path, typer.Option("--vault", exists=True, dir_okay=False, help="The vault's file.")
    ],
    json: JsonOption = False,
) -> None:
    """Put the values back where a file, or an answer in a file, has placeholders."""
    from afina.data.personal.redaction import restore_file
    from afina.data.personal.vault import read_key, unlock
    from afina.data.targets import check_targets

    for read in (path, key, vault):
        check_targets(read, to)
    count = restore_file(path, to, unlock(vault.read_bytes(), read_key(key)))
    if json:
        print_json({"lines": count, "written": str(to)})
        return
    print_facts({"restored": f"{in_count(count)} lines", "written": str(to)})
