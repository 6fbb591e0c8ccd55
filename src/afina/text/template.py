"""A model's chat template, in a sandbox, with the names that such templates expect.

It turns messages into text and does nothing else: no tokens, no spans, no rules of ours. A
template comes from strangers, so it sees plain values alone and can change nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from afina.domain.clock import SYSTEM_CLOCK, Clock, ManualClock
from afina.errors import BaseRefused, InvalidRequest
from afina.text.frames import Frames
from afina.text.standins import MARK, spoil_within

_MARK_ESCAPED = json.dumps(MARK).strip('"')
_TOKEN_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class TemplateRefused(InvalidRequest):
    """The template cannot write these messages."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant says; as text it is its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own shape)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class TemplateSource:
    """The template of a folder: its default, the one for tools if there is one, its variables."""

    default: str
    tools: str | None
    variables: Mapping[str, str]

    @property
    def sha256(self) -> str:
        parts = {"default": self.default, "tools": self.tools, "variables": dict(self.variables)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: TemplateSource, clock: Clock = SYSTEM_CLOCK) -> None:
        self.source = source
        environment = _environment(clock)
        try:
            self._default = environment.from_string(source.default)
            self._tools = environment.from_string(source.tools) if source.tools else self._default
            names = jinja2.meta.find_undeclared_variables(environment.parse(source.default))
            tree = environment.parse(source.default)  # the search for names changes its own
        except jinja2.TemplateError as error:
            raise BaseRefused(f"The chat template is not valid Jinja: {error}.") from None
        self.knows_tools = source.tools is not None or "tools" in names
        self.asks_the_time = self.mentions("strftime_now")
        """Whether what it writes may depend on the day."""
        steady = not self.asks_the_time or isinstance(clock, ManualClock)
        self._frames = Frames(tree, self._run_default) if steady else None

    def mentions(self, word: str) -> bool:
        """Whether the template's source holds `word`."""
        return word in self.source.default or word in (self.source.tools or "")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        generation: bool = False,
    ) -> str:
        """The chat as text; with `generation`, up to where the assistant speaks."""
        if self._frames is not None and tools is None and not generation:
            text = self._frames.write(messages)
            if text is not None:
                return text
        try:
            return self._run(messages, tools, generation=generation)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TemplateRefused(
                "The model's chat template refuses these messages" + self._reason(error),
                param="messages",
                remedy="Change roles, their order or contents to what the model was made for.",
            ) from None

    def _run_default(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return self._run(messages, None, generation=False)

    def _run(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        generation: bool,
    ) -> str:
        template = self._tools if tools else self._default
        return template.render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=generation,
            **self.source.variables,
        )

    def _reason(self, error: Exception) -> str:
        """The template's own words, where they are words of the template and not of a message."""
        words = str(error).strip().rstrip(".")
        return f": {words}." if words and self.mentions(words) else "."


def read_template(folder: Path) -> TemplateSource:
    """The template in `folder`. Raises BaseRefused where there is none."""
    config = _read_json(folder / "tokenizer_config.json")
    named = config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(named, str):
        templates["default"] = named
    elif isinstance(named, list):
        templates = {entry["name"]: entry["template"] for entry in named}
    if (folder / "chat_template.jinja").exists():
        templates["default"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text(encoding="utf-8")
    if "default" not in templates:
        raise BaseRefused(
            f"{folder} has no chat template.",
            remedy="Put one into chat_template.jinja, or choose an instruction-tuned model.",
        )
    return TemplateSource(templates["default"], templates.get("tool_use"), _variables(config))


def _variables(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of named special tokens, under the names that templates use."""
    found = {}
    named = {f"{name}_token": config.get(f"{name}_token") for name in _TOKEN_NAMES}
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        named |= extra
    for name, value in named.items():
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BaseRefused(f"{path} cannot be read: {error}.", remedy="Pull it again.") from None
    return data if isinstance(data, dict) else {}


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, which need not ask whether a key of plain data is safe."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`message.role`: of a plain mapping the key, where no method is called so."""
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICT:
            return obj[attribute]
        return super().getattr(obj, attribute)


_OF_DICT = frozenset(dir(dict))


def _environment(clock: Clock) -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.datetime.fromtimestamp(clock.now(), datetime.UTC).strftime(format)

    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter would write `<` as an escape."""
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    if MARK in text or _MARK_ESCAPED in text:
        spoil_within(value)
    return text
