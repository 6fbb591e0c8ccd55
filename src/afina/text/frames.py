"""What a template writes around the texts of a chat, learned once for each order of roles.

Running a template was nearly half of what a short row cost, and it writes the same around every
question and answer. So it is run over stand-ins (`afina.text.standins`) the first
time that an order of roles is met; chats of that order are then written by joining strings. What a
template writes never changes by it: where it does more with a text than to write or trim it, or a
text is such that the template would have decided otherwise, the template runs.

A template is looked at first, before it is run so: a stand-in notes what is done to it, and cannot
note what is done to a plain string into which it was copied. `_writes_plainly` says no wherever a
template might do that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from jinja2 import nodes

from afina.text.standins import MARK, PLACES, Assumed, Origin, Spoiled, Trace

_MOST_FRAMES: Final = 256
_MOST_MESSAGES: Final = 64
_STATEMENTS: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign,
    nodes.Break, nodes.Continue, nodes.ExprStmt,
)  # fmt: skip
_EXPRESSIONS: Final = (
    nodes.Name, nodes.NSRef, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Compare, nodes.Operand, nodes.And,
    nodes.Or, nodes.Not, nodes.Neg, nodes.Add, nodes.Sub, nodes.Mod, nodes.CondExpr, nodes.Call,
    nodes.Filter, nodes.Test, nodes.Concat,
)  # fmt: skip
_FILTERS: Final = frozenset(
    ("trim", "length", "list", "first", "last", "items", "default", "tojson")
)
_TESTS: Final = frozenset(
    ("defined", "undefined", "none", "string", "mapping", "true", "false", "boolean", "number",
     "integer", "iterable", "sequence", "equalto", "eq", "==", "ne", "!=")
)  # fmt: skip
_FUNCTIONS: Final = frozenset(("raise_exception", "namespace", "range"))
_METHODS: Final = frozenset(
    ("startswith", "endswith", "strip", "lstrip", "rstrip", "split", "get", "items", "keys")
)

Render = Callable[[Sequence[Mapping[str, Any]]], str]


@dataclass(frozen=True)
class _Frame:
    """What stands around texts: `pieces` with gaps at `gaps`, which `origins` fill."""

    pieces: tuple[str, ...]
    gaps: tuple[tuple[int, Origin], ...]
    assumed: tuple[Assumed, ...]

    def write(self, contents: list[str]) -> str | None:
        """The chat; None where these texts are not such as was assumed."""
        for assumed in self.assumed:
            if not assumed.is_true(contents):
                return None
        pieces = list(self.pieces)
        for place, origin in self.gaps:
            pieces[place] = origin.value(contents) if origin.trims else contents[origin.message]
        return "".join(pieces)


class Frames:
    """The frames of one template, which is `render`ed to learn them."""

    def __init__(self, tree: nodes.Template, render: Render) -> None:
        self._render = render
        self._known: dict[tuple[str, ...], _Frame | None] = {}
        self._may_learn = _writes_plainly(tree)

    def write(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """What the template writes for these messages; None where only the template can tell."""
        if not self._may_learn:
            return None
        roles: list[str] = []
        contents: list[str] = []
        for message in messages:
            content = message.get("content")
            if len(message) != 2 or type(content) is not str:
                return None
            roles.append(message["role"])
            contents.append(content)
        key = tuple(roles)
        frame = self._known.get(key, _UNKNOWN)
        if frame is _UNKNOWN:
            frame = self._learn(key)
        return None if frame is None else frame.write(contents)

    def _learn(self, roles: tuple[str, ...]) -> _Frame | None:
        if len(self._known) >= _MOST_FRAMES or len(roles) > _MOST_MESSAGES:
            return None
        self._known[roles] = frame = self._run(roles)
        return frame

    def _run(self, roles: tuple[str, ...]) -> _Frame | None:
        trace = Trace()
        messages = [
            {"role": role, "content": trace.stand_in(Origin(number))}
            for number, role in enumerate(roles)
        ]
        try:
            text = self._render(messages)
            pieces = PLACES.split(text)  # literal, number, literal, number, ... literal
            gaps = tuple((at, trace.origins[int(pieces[at])]) for at in range(1, len(pieces), 2))
        except (jinja2.TemplateError, Spoiled, TypeError, ValueError, LookupError, ArithmeticError):
            return None  # the template itself will say of a real chat what is wrong
        if trace.spoiled or any(MARK in piece for piece in pieces):
            return None
        return _Frame(tuple(pieces), gaps, tuple(trace.assumed))


_UNKNOWN: Final = _Frame((), (), ())


def _writes_plainly(tree: nodes.Template) -> bool:
    """Whether whatever a template does with a text is done to that text, where it is seen."""
    return all(_is_plain(child) for child in tree.iter_child_nodes())


def _is_plain(node: nodes.Node, written: bool = False) -> bool:
    """Of a node and all below it; `written`: what it gives is written and nothing else."""
    if isinstance(node, nodes.Concat) and not written:
        return False  # gives a plain string
    if not isinstance(node, _STATEMENTS + _EXPRESSIONS) or not _is_known(node):
        return False
    below = isinstance(node, nodes.Output) or (written and isinstance(node, nodes.Concat))
    return all(_is_plain(child, below) for child in node.iter_child_nodes())


def _is_known(node: nodes.Node) -> bool:
    """Whether a stand-in sees what this operation does to it."""
    if isinstance(node, nodes.Test):
        return node.name in _TESTS
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS and node.node is not None and _takes_constants(node)
    if isinstance(node, nodes.Call):
        return _is_known_call(node)
    if isinstance(node, nodes.Compare):
        return _is_known_comparison(node)
    if isinstance(node, nodes.Mod):  # of numbers: a text could be formatted by it
        return isinstance(node.right, nodes.Const) and isinstance(node.right.value, int)
    if isinstance(node, nodes.Getitem):
        return _is_number(node.arg) or isinstance(node.arg, nodes.Const | nodes.Slice)
    return True


def _is_number(node: nodes.Node) -> bool:
    """Whether a stand-in in this sum would be seen: any but a number for a key is looked up as an
    attribute's name."""
    if isinstance(node, nodes.Neg):
        return True
    return isinstance(node, nodes.Add | nodes.Sub) and (
        isinstance(node.right, nodes.Const) and isinstance(node.right.value, int)
    )


def _takes_constants(node: nodes.Call | nodes.Filter) -> bool:
    given = [*node.args, *(keyword.value for keyword in node.kwargs)]
    return all(isinstance(argument, nodes.Const) for argument in given) and not (
        node.dyn_args or node.dyn_kwargs
    )


def _is_known_call(node: nodes.Call) -> bool:
    if isinstance(node.node, nodes.Name):
        # A date is written by what it is given: a text there would be read and not noted.
        day = node.node.name == "strftime_now" and _takes_constants(node)
        return day or node.node.name in _FUNCTIONS
    called = node.node
    return isinstance(called, nodes.Getattr) and called.attr in _METHODS and _takes_constants(node)


def _is_known_comparison(node: nodes.Compare) -> bool:
    """A plain string that is asked whether it holds a text says nothing of it."""
    if all(operand.op not in ("in", "notin") for operand in node.ops):
        return True
    asked = node.ops[0].expr
    return len(node.ops) == 1 and isinstance(
        node.expr if not isinstance(asked, nodes.List | nodes.Tuple) else asked,
        nodes.Const | nodes.List | nodes.Tuple,
    )
