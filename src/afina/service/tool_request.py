"""Tools of a request: their shapes, and which calls an answer may make.

Definitions reach the model's template as they were written, key by key, because that is how
training rows are rendered too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, model_validator

from afina.errors import InvalidRequest
from afina.service.messages import Json, unsupported
from afina.service.refusals import Wire, parse
from afina.text.grammars import CallableTool, CallRules

NO_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
"""Of a function that names none."""
MOST_TOOLS = 128
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(Wire):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def callable_tool(self, param: str) -> CallableTool:
        """What calls of it must look like; `param` is the field of its schema."""
        schema = NO_PARAMETERS if self.parameters is None else self.parameters
        return CallableTool(self.name, schema, bool(self.strict), param)


class FunctionTool(Wire):
    """A tool that is a function."""

    type: Literal["function"]
    function: FunctionDefinition
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, read: Callable[[Any], FunctionTool]) -> FunctionTool:
        made = read(value)
        if isinstance(value, dict):
            made._written.update(value)
        return made

    @property
    def written(self) -> dict[str, Any]:
        """The tool as the request has it."""
        return dict(self._written)


class CustomTool(Wire):
    """A tool with free text or a grammar; refused."""

    type: Literal["custom"]
    custom: Json


def _kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "custom" if kind == "custom" else "function"


Tool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[CustomTool, Tag("custom")],
    Discriminator(_kind),
]


class NamedFunction(Wire):
    """A function by its name."""

    name: str


class NamedTool(Wire):
    """`tool_choice` as an object: this function and no other."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTool(Wire):
    """One of the tools that may be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Wire):
    """Some of the tools, and whether one must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Field(min_length=1, max_length=MOST_TOOLS)]


class AllowedChoice(Wire):
    """`tool_choice` as an object: some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


@dataclass(frozen=True)
class ToolUse:
    """What a template writes of tools, and which calls an answer may make."""

    definitions: list[dict[str, Any]]
    rules: CallRules


@dataclass(frozen=True)
class Choice:
    """Which of the tools: `names` None is all; `required` is at least one call."""

    names: tuple[str, ...] | None = None
    required: bool = False
    single: bool = False


def tool_use(
    tools: Sequence[Tool],
    choice: Json,
    parallel: bool | None,
    schemas: str = "tools[{}].function.parameters",
) -> ToolUse | None:
    """The use of a request's tools; None where there are none or none may be called. `schemas` is
    where the request has their schemas. Raises InvalidRequest, UnsupportedField."""
    functions: list[FunctionTool] = []
    for number, tool in enumerate(tools):
        if not isinstance(tool, FunctionTool):
            raise unsupported(f"tools[{number}].type", "only functions can be called")
        functions.append(tool)
    chosen = _choice(choice)
    if not functions:
        if chosen is not None and (chosen.required or chosen.names is not None):
            raise InvalidRequest(
                "'tool_choice' is only allowed when 'tools' are specified.",
                param="tool_choice",
                code="invalid_value",
            )
        return None
    if chosen is None:
        return None
    definitions = [function.written for function in functions]
    rules = call_rules([f.function for f in functions], chosen, parallel, schemas)
    return ToolUse(definitions, rules)


def call_rules(
    functions: Sequence[FunctionDefinition],
    choice: Choice,
    parallel: bool | None,
    schemas: str = "functions[{}].parameters",
) -> CallRules:
    """The rules of calls. Raises InvalidRequest for two functions of one name, and for a choice
    that names none."""
    _refuse_twice([f.name for f in functions], schemas.replace("parameters", "name"))
    known = {function.name for function in functions}
    for name in choice.names or ():
        if name not in known:
            older = schemas.startswith("functions")
            field, among = ("function_call", "functions") if older else ("tool_choice", "tools")
            raise InvalidRequest(
                f"'{field}' names a function that is not among the {among}.",
                param=field,
                code="invalid_value",
            )
    wanted = known if choice.names is None else set(choice.names)
    return CallRules(
        tools=[
            function.callable_tool(schemas.format(number))
            for number, function in enumerate(functions)
            if function.name in wanted
        ],
        required=choice.required,
        parallel=parallel is not False and not choice.single,
    )


def _choice(choice: Json) -> Choice | None:
    """What `tool_choice` says; None: no calls."""
    if choice is None or choice == "auto":
        return Choice()
    if choice == "none":
        return None
    if choice == "required":
        return Choice(required=True)
    if not isinstance(choice, dict):
        raise InvalidRequest(
            "Invalid value for 'tool_choice': supported values are 'none', 'auto', 'required' and "
            "an object that names a function.",
            param="tool_choice",
            code="invalid_value",
        )
    if choice.get("type") == "custom":
        raise unsupported("tool_choice.type", "only functions can be called")
    try:
        if choice.get("type") == "allowed_tools":
            allowed = parse(AllowedChoice, choice).allowed_tools
            names = tuple(tool.function.name for tool in allowed.tools)
            return Choice(names, required=allowed.mode == "required")
        return Choice((parse(NamedTool, choice).function.name,), required=True, single=True)
    except InvalidRequest as error:
        error.param = f"tool_choice.{error.param}" if error.param else "tool_choice"
        raise


def _refuse_twice(names: Sequence[str], places: str) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InvalidRequest(
                "Two of the functions have the same name.",
                param=places.format(number),
                code="invalid_value",
            )
