"""Writes docs/conformance.md: every operation of the official client, and every field that it can
send, beside what this server does with it. Part of `make docs`; a contract test compares."""

from __future__ import annotations

import ast
import re
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
_INTRO = """# What of the wire API is here

Made by `make docs` from the sources of the official client, version {version}, and from this
server's own OpenAPI document. Of {total} operations that the client has, {here} are here; the
others answer 404 in the error envelope with a sentence that names them.

*Taken*: the field has its place, and a value that asks for more than is offered is refused with a
400 that names the field. *Refused*: any value is a 400 that names the field. Nothing is accepted
and ignored.
"""


@dataclass(frozen=True)
class Operation:
    """A method of the client: what it sends where."""

    verb: str
    path: str
    fields: tuple[str, ...]


def operations() -> list[Operation]:
    """Those of the whole client, sorted, each once."""
    assert resources.__file__ is not None
    found: dict[tuple[str, str], set[str]] = {}
    for source in sorted(Path(resources.__file__).parent.rglob("*.py")):
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


def page() -> str:
    """The whole page."""
    here = offered()
    theirs = operations()
    count = sum((operation.path, operation.verb) in here for operation in theirs)
    lines = [_INTRO.format(version=openai.__version__, total=len(theirs), here=count)]
    lines += ["## Here", "", "| operation | taken | refused |", "|---|---|---|"]
    for operation in theirs:
        known = here.get((operation.path, operation.verb))
        if known is not None:
            taken = [name for name in operation.fields if name in known]
            refused = [name for name in operation.fields if name not in known]
            lines.append(f"| {_shown(operation)} | {_names(taken)} | {_names(refused)} |")
    lines += ["", "## Not here", "", "| operation | what it answers |", "|---|---|"]
    for operation in theirs:
        if (operation.path, operation.verb) not in here:
            told = absence(operation.verb, "/v1" + operation.path.replace("{}", "x"))
            said = told.message if told is not None else "Invalid URL, or method not allowed."
            lines.append(f"| {_shown(operation)} | {said} |")
    return "\n".join(lines) + "\n"


def _shown(operation: Operation) -> str:
    return f"`{operation.verb} {operation.path.replace('{}', '…')}`"


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


if __name__ == "__main__":
    PAGE.write_text(page())
