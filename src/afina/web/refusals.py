"""What the platform refuses, in the reader's language: by the code or the status of the error.

The texts are in `strings.toml`, section `refused`; what the wire says goes with them, marked as
English. What has no sentence of its own (a value that is wrong in one of many ways) is shown in the
wire's words alone, and so is everything to readers of English.
"""

from __future__ import annotations

from typing import Any

from afina.errors import AfinaError
from afina.language.strings import Texts
from afina.web.sayings import Fault


def refused(texts: Texts, error: AfinaError) -> Fault:
    """Why something was not done."""
    if texts.language != "en":
        for name in (error.code, f"status_{error.status}"):
            if name is not None and texts.has(f"refused.{name}"):
                return Fault(texts(f"refused.{name}"), texts.language, error.one_line())
            if name is not None and error.status == 400:
                break  # wrong in its own way: a sentence for all of them would say nothing
    return Fault(error.one_line(), "en")


def as_json(texts: Texts, error: AfinaError) -> dict[str, Any]:
    """The error of an answer to a script: `lang` is that of `message`, and `exactly` what the wire
    says where that is in others' words."""
    told = refused(texts, error)
    said: dict[str, Any] = {"message": error.message, "remedy": error.remedy}
    if told.exactly is not None:
        said = {"message": told.text, "remedy": None, "exactly": told.exactly}
    return {**said, "lang": told.language, "code": error.code, "param": error.param}
