"""The OpenAPI document and the page that shows it.

Routes read their own requests, so what they read is written into the document here, from the same
shapes. The page is made on the server from that document: no script, nothing from another host.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from afina.api.answers import ErrorEnvelope
from afina.service.refusals import LaxWire

_REF: Final = "#/components/schemas/{model}"
_ERROR: Final = {"application/json": {"schema": {"$ref": _REF.format(model="ErrorEnvelope")}}}
# Named, not given as a model: the framework would build a validator of it for every route.
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"content": _ERROR, "description": "Refused; the error says what to do."},
    "5XX": {"content": _ERROR, "description": "A fault, or a part is not ready yet."},
}


def documented(
    *, body: type[BaseModel] | None = None, query: type[BaseModel] | None = None
) -> dict[str, Any]:
    """What a route reads, for its `openapi_extra`; `openapi` puts the shapes in its place."""
    shapes = {_BODY: body, _QUERY: query}
    return {mark: shape.__name__ for mark, shape in shapes.items() if shape is not None}


def multipart(body: type[BaseModel], file: str = "file") -> dict[str, Any]:
    """As `documented`, for a form with a file in the field `file`."""
    return {_FORM: [body.__name__, file]}


_BODY: Final = "x-afina-body"
_QUERY: Final = "x-afina-query"
_FORM: Final = "x-afina-form"


def openapi(
    app: FastAPI,
    declared: Sequence[BaseRoute],
    shapes: Sequence[type[BaseModel]],
    plain: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The whole document. `declared` are the framework's routes, `shapes` what they read; `plain`
    the operations, by path and method, of routes that the framework knows nothing of."""
    document = get_openapi(
        title="afina", version=app.version, description=app.description, routes=declared
    )
    for path, operations in plain.items():
        document["paths"].setdefault(path, {}).update(operations)
    components = document["components"]
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    envelope = TypeAdapter(ErrorEnvelope).json_schema(ref_template=_REF)
    schemas.update(envelope.pop("$defs", {}), ErrorEnvelope=envelope)
    read = models_json_schema([(s, "validation") for s in shapes], ref_template=_REF)[1]["$defs"]
    schemas.update(read)
    for path in document["paths"].values():
        for operation in path.values():
            operation.setdefault("security", [{"key": []}])
            _write_in(operation, schemas)
    for name in {s.__name__ for s in shapes if issubclass(s, LaxWire)}:
        del schemas[name]
    return document


def _write_in(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    body = operation.pop(_BODY, None)
    if body is not None:
        content = {"application/json": {"schema": {"$ref": _REF.format(model=body)}}}
        assert body in schemas, body
        operation["requestBody"] = {"required": True, "content": content}
    form = operation.pop(_FORM, None)
    if form is not None:
        shape, field = form
        schema = dict(schemas[shape])
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        schema["properties"] = {field: file, **schema.get("properties", {})}
        schema["required"] = [field, *schema.get("required", [])]
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema}},
        }
    query = operation.pop(_QUERY, None)
    if query is not None:
        required = schemas[query].get("required", ())
        for name, kind in schemas[query]["properties"].items():
            parameter = _parameter(name, kind, name in required)
            operation.setdefault("parameters", []).append(parameter)


def _parameter(name: str, kind: dict[str, Any], required: bool) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": required, "schema": kind}
    if any(branch.get("type") == "object" for branch in kind.get("anyOf", [])):
        parameter["style"] = "deepObject"
        parameter["explode"] = True
    return parameter


_STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
details{border:1px solid #8886;border-radius:6px;margin:.4rem 0;padding:.3rem .8rem}
summary{cursor:pointer}
summary b{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #8884;text-align:left;padding:.2rem .6rem .2rem 0;vertical-align:top}
.small{opacity:.75;font-size:.9em}
"""


def page(document: dict[str, Any]) -> Response:
    """The document as one page of HTML."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{_text(document['info']['title'])} API</title><style>{_STYLE}</style>",
        f"<h1>{_text(document['info']['title'])} API {_text(document['info']['version'])}</h1>",
        f"<p>{_text(document['info'].get('description', ''))}</p>",
        "<p class=small>The same as data: <a href='/openapi.json'>openapi.json</a></p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(path, method, operation))
    parts.append("<h2>Shapes</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        title = f"<details id='{_text(name)}'><summary><code>{_text(name)}</code></summary>"
        parts.append(f"{title}{_fields(schema)}</details>")
    parts.append("</html>")
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
    return HTMLResponse("\n".join(parts), headers=headers)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    summary = _text(operation.get("summary", ""))
    inside = [f"<p>{_text(operation.get('description', ''))}</p>"]
    rows = [
        f"<tr><td><code>{_text(p['name'])}</code><td>{_text(p['in'])}<td>{_kind(p['schema'])}"
        for p in operation.get("parameters", [])
    ]
    if rows:
        inside.append(f"<table><tr><th>parameter<th>in<th>type{''.join(rows)}</table>")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        shown = _kind(schema) if "$ref" in schema else _fields(schema)
        inside.append(f"<p>Body, {_text(media)}: {shown}</p>")
    for status, answer in operation.get("responses", {}).items():
        kinds = [_kind(c.get("schema", {})) for c in answer.get("content", {}).values()]
        inside.append(
            f"<p class=small>{_text(status)}: {_text(answer['description'])} {' '.join(kinds)}</p>"
        )
    head = f"<b>{method.upper()}</b> <code>{_text(path)}</code> <span class=small>{summary}</span>"
    return f"<details><summary>{head}</summary>{''.join(inside)}</details>"


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{_text(name)}</code>{'' if name in required else ' ?'}<td>{_kind(kind)}"
        for name, kind in schema.get("properties", {}).items()
    ]
    intro = f"<p>{_text(schema.get('description', ''))}</p>"
    return f"{intro}<table>{''.join(rows)}</table>" if rows else intro


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#{name}'>{name}</a>"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_kind(branch) for branch in schema[key])
    if "enum" in schema or "const" in schema:
        return _text(", ".join(repr(v) for v in schema.get("enum", [schema.get("const")])))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    limits = [
        f"{name} {schema[name]}"
        for name in ("minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength")
        if name in schema
    ]
    return _text(", ".join([kind, *limits]))


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
