"""Templates to answers. Everything that is put into a template is escaped; nothing is markup.

A page gets `t` (texts), `n`, `tiny`, `money`, `size`, `span` (numbers as the language writes them),
`me` (who looks, None before the sign-in) and what its handler gives it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from afina.domain.models import short_name
from afina.language import numbers
from afina.language.strings import NAMES, Texts
from afina.web import files
from afina.web.refusals import refused
from afina.web.visit import Visit

_FOLDER: Final = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["iso"] = _iso
    found.filters["data"] = lambda value: json.dumps(value, ensure_ascii=False)
    found.filters["short"] = short_name
    found.globals["static"] = files.url
    found.globals["languages"] = NAMES
    return found


def page(
    visit: Visit, template: str, values: Mapping[str, Any] | None = None, status: int = 200
) -> HTMLResponse:
    """A whole page, or a fragment of one."""
    return HTMLResponse(text(visit, template, values), status_code=status)


def text(visit: Visit, template: str, values: Mapping[str, Any] | None = None) -> str:
    """The template's text for this visit."""
    return _environment().get_template(template).render(**_shared(visit), **(values or {}))


def _shared(visit: Visit) -> dict[str, Any]:
    texts: Texts = visit.texts
    language = texts.language
    return {
        "t": texts,
        "n": functools.partial(numbers.number, language),
        "tiny": functools.partial(numbers.tiny, language),
        "money": functools.partial(numbers.money, language),
        "size": functools.partial(numbers.size, language),
        "span": functools.partial(numbers.span, texts),
        "refused": functools.partial(refused, texts),
        "me": visit.session,
        "form_token": visit.form_token,
        "theme": visit.theme,
        "path": visit.request.url.path,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
