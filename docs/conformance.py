"""Writes docs/conformance.md: every operation of the official client in each version that is
supported, and every field that it can send, beside what this server does with it. Part of `make
docs`; a contract test compares.

The newest version is read from the installed client. What the older ones send stands in
docs/clients.json, which is read anew from a client's folder by

    python docs/conformance.py 1.109.1 FOLDER/openai/resources
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai
from openai import resources

from afina.api.absent import absence
from afina.api.app import create_app
from afina.settings import Settings

PAGE = Path(__file__).parent / "conformance.md"
_VERBS = {"_get": "GET", "_post": "POST", "_delete": "DELETE", "_get_api_list": "GET"}
CLIENTS = Path(__file__).parent / "clients.json"
_INTRO = """# What of the wire API is here

Made by `make docs` from the sources of the official client, {versions}, and
from this server's own OpenAPI document. Of {total} operations that these clients have, {here} are
here; the others answer 404 in the error envelope with a sentence that names them. Of {fields}
fields that the clients send to operations that are here, {taken} are taken, and {refused} are
refused by their name: 100 % are one or the other.

*Taken*: the field has its place, and a value that asks for more than is offered is refused with a
400 that names the field. *Refused*: any value is a 400 that names the field. Nothing is accepted
and ignored. *Clients*: the major versions that have the operation; a field with a number after it
is sent by those versions alone.

| client | operations | here | fields sent to them | taken | refused by name |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Operation:
    """A method of the client: what it sends where."""

    verb: str
    path: str
    fields: tuple[str, ...]


def operations(folder: Path | None = None) -> list[Operation]:
    """Those of a whole client, sorted, each once; of the installed one, or of the one whose
    `resources` are in `folder`."""
    assert resources.__file__ is not None
    found: dict[tuple[str, str], set[str]] = {}
    for source in sorted((folder or Path(resources.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.FunctionDef):
                for verb, path, fields in _calls(node):
                    found.setdefault((path, verb), set()).update(fields)
    return [
        Operation(verb, path, tuple(sorted(fields)))
        for (path, verb), fields in sorted(found.items())
    ]


def _calls(method: ast.FunctionDef) -> Iterator[tuple[str, str, set[str]]]:
    for node in ast.walk(method):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr in _VERBS and node.args:
            path = _path(node.args[0])
            if path is not None:
                verb = _VERBS[node.func.attr]
                for keyword in node.keywords:
                    if keyword.arg == "method" and isinstance(keyword.value, ast.Constant):
                        verb = str(keyword.value.value).upper()
                yield verb, path, _sent(method, node)


def _path(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call) and node.args:
        node = node.args[0]
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{[^}]*\}", "{}", node.value.partition("?")[0])
    return None


def _sent(method: ast.FunctionDef, call: ast.Call) -> set[str]:
    """The keys of the dictionaries that the call sends: written in it, or in a variable before."""
    found: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(call):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ("maybe_transform", "transform"):
            found |= _keys(node.args[0])
            names |= {n.id for n in ast.walk(node.args[0]) if isinstance(n, ast.Name)}
    for node in ast.walk(method):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id in names for t in targets):
                found |= {key for part in ast.walk(node.value) for key in _keys(part)}
    return found


def _keys(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.Dict):
        return set()
    return {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}


def offered() -> dict[tuple[str, str], set[str]]:
    """The operations of our document, with the fields that each knows."""
    with TemporaryDirectory() as folder:
        document = create_app(Settings(data=Path(folder))).openapi()
    schemas = document["components"]["schemas"]
    found = {}
    for path, methods in document["paths"].items():
        for verb, operation in methods.items():
            plain = re.sub(r"\{[^}]*\}", "{}", path.removeprefix("/v1"))
            found[(plain, verb.upper())] = _known(operation, schemas)
    return found


def _known(operation: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    names = {p["name"].removesuffix("[]") for p in operation.get("parameters", [])}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        names |= set(_properties(content["schema"], schemas))
    return names


def _properties(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[-1]]
    yield from schema.get("properties", {})
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _properties(branch, schemas)


def by_version() -> dict[str, list[Operation]]:
    """What each supported version of the client sends, oldest first."""
    older = json.loads(CLIENTS.read_text())
    found = {
        version: [Operation(*name.split(" "), tuple(fields)) for name, fields in known.items()]
        for version, known in older.items()
    }
    return found | {openai.__version__: operations()}


def keep(version: str, folder: Path) -> None:
    """Writes down what a version of the client sends."""
    known = json.loads(CLIENTS.read_text()) if CLIENTS.exists() else {}
    known[version] = {f"{o.verb} {o.path}": list(o.fields) for o in operations(folder)}
    CLIENTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def page() -> str:
    """The whole page."""
    here, clients = offered(), by_version()
    everything: dict[tuple[str, str], dict[str, set[str]]] = {}
    for version, theirs in clients.items():
        for one in theirs:
            fields = everything.setdefault((one.path, one.verb), {})
            fields[version] = set(one.fields)
    table = [_counts(version, theirs, here) for version, theirs in clients.items()]
    named = {
        (key, name): name in here[key]
        for key, fields in everything.items()
        if key in here
        for name in set().union(*fields.values())
    }
    intro = _INTRO.format(
        versions=", ".join(clients),
        total=len(everything),
        here=sum(key in here for key in everything),
        fields=len(named),
        taken=sum(named.values()),
        refused=len(named) - sum(named.values()),
    )
    lines = [intro + "\n".join(table), "", "## Here", ""]
    lines += ["| operation | clients | taken | refused |", "|---|---|---|---|"]
    absent = ["## Not here", "", "| operation | clients | what it answers |", "|---|---|---|"]
    for (path, verb), fields in sorted(everything.items()):
        shown = f"| `{verb} {path.replace('{}', '…')}` | {_majors(fields)} |"
        known = here.get((path, verb))
        if known is None:
            told = absence(verb, "/v1" + path.replace("{}", "x"))
            said = told.message if told is not None else "Invalid URL, or method not allowed."
            absent.append(f"{shown} {said} |")
            continue
        names = sorted(set().union(*fields.values()))
        taken = [_field(name, fields) for name in names if name in known]
        refused = [_field(name, fields) for name in names if name not in known]
        lines.append(f"{shown} {', '.join(taken) or '–'} | {', '.join(refused) or '–'} |")
    return "\n".join([*lines, "", *absent]) + "\n"


def _counts(version: str, theirs: list[Operation], here: dict[tuple[str, str], set[str]]) -> str:
    found = [one for one in theirs if (one.path, one.verb) in here]
    known = [name in here[(one.path, one.verb)] for one in found for name in one.fields]
    counts = (len(theirs), len(found), len(known), sum(known), len(known) - sum(known))
    return f"| {version} | {' | '.join(map(str, counts))} |"


def _majors(versions: dict[str, set[str]]) -> str:
    return " ".join(version.partition(".")[0] for version in versions)


def _field(name: str, fields: dict[str, set[str]]) -> str:
    """A field; with the versions that send it where others have the operation and do not."""
    sent = {version: found for version, found in fields.items() if name in found}
    return f"`{name}`" if len(sent) == len(fields) else f"`{name}` ({_majors(sent)})"


if __name__ == "__main__":
    if len(sys.argv) == 3:
        keep(sys.argv[1], Path(sys.argv[2]))
    PAGE.write_text(page())
