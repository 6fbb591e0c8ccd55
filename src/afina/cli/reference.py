"""The page `docs/cli.md`, made from the command tree itself, so that it cannot lie."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer.main

from afina.cli.main import app

_HEAD: Final = """# The command line

Made by `make docs` from the program itself; a test compares the two.

Every command that prints an answer takes `--json`. Answers go to standard output, remarks and
errors to standard error. Exit codes: 0 it worked, 1 it failed (one line says why and what to do), 2
the command line was wrong, 130 stopped by Ctrl-C.

Settings come from options, then `AFINA_*` in the environment, then `afina.toml` in the data
directory. `afina --install-completion` sets up completion for your shell.
"""
_METAVARS: Final[Mapping[object, str]] = {int: "INT", float: "NUMBER", Path: "PATH"}
_LEFT_OUT: Final = {"help", "install_completion", "show_completion"}


def reference() -> str:
    """The whole page."""
    tree = typer.main.get_command(app)
    return "\n".join([_HEAD, *_sections(tree, "afina")]).rstrip() + "\n"


def _sections(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if not children:
        yield from _section(command, path)
        return
    if path != "afina":
        yield f"## {path}\n\n{_plain(command.help)}\n"
    for name, child in children.items():
        yield from _sections(child, f"{path} {name}")


def _section(command: Any, path: str) -> Iterator[str]:
    depth = "#" * min(3, len(path.split()))
    yield f"{depth} {path}\n\n{_plain(command.help)}\n"
    params = [param for param in command.params if param.name not in _LEFT_OUT]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    usage = " ".join(
        [path, *(_argument(argument) for argument in arguments), *(["[OPTIONS]"] * bool(options))]
    )
    yield f"```\n{usage}\n```\n"
    if not params:
        return
    lines = ["| | |", "|---|---|"]
    for argument in arguments:
        lines.append(f"| `{_metavar(argument)}` | {_plain(argument.help)} |")
    for option in options:
        lines.append(f"| {_option(option)} | {_plain(option.help)}{_more(option)} |")
    yield "\n".join(lines) + "\n"


def _argument(argument: Any) -> str:
    name = _metavar(argument)
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} `{_metavar(option)}`"


def _metavar(param: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    if param.param_type_name == "argument":
        return str(param.name).upper()
    kind = param.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(member.value for member in kind)
    return _METAVARS.get(kind, "TEXT")


def _more(option: Any) -> str:
    if option.required:
        return " Must be given."
    if option.is_flag or option.default in (None, (), []):
        return ""
    default = getattr(option.default, "value", option.default)
    return f" Default: `{default}`."


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
