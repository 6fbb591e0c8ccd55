"""The top of the command tree: how every command ends.

An error of ours becomes one line with its remedy on standard error and exit code 1; a wrong
command line becomes one line and exit code 2; nobody is shown a stack trace. Standard output
carries answers alone, so that `--json` can be piped.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from afina.errors import AfinaError

FAILED: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


class AfinaGroup(TyperGroup):
    """Runs the command and turns whatever goes wrong into one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Always ends with SystemExit, except where a caller asks to handle errors itself."""
        if not standalone_mode:
            return super().main(
                args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra
            )
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except AfinaError as error:
            end(error.one_line(), FAILED)
        except typer.TyperException as error:
            _end_wrong_use(error)
        except (KeyboardInterrupt, typer.Abort):
            end("Stopped.", INTERRUPTED)
        except BrokenPipeError:
            # The reader of a pipe (`| head`) has gone: nothing is wrong, and nothing can be said.
            sys.stderr.close()
            sys.exit(_BROKEN_PIPE)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            end(f"{place}{error.strerror or error}.{_remedy(error)}", FAILED)
        except Exception as error:  # noqa: BLE001 - the last net: a user never sees a stack trace
            if isinstance(error.__cause__, KeyboardInterrupt):  # while a module was loaded
                end("Stopped.", INTERRUPTED)
            end(_fault(error), FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def end(message: str, code: int) -> None:
    """Say one line on standard error and leave with `code`."""
    text = " ".join(message.split())
    print(f"afina: {text}", file=sys.stderr)
    sys.exit(code)


def _end_wrong_use(error: typer.TyperException) -> None:
    message = error.format_message().rstrip(".")
    code = getattr(error, "exit_code", WRONG_USE)
    if not message:
        # A group without a command: its help was shown already, and says what there is.
        sys.exit(code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "afina"
    end(f"{message}. See `{path} --help`.", code)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return " Make room, or write to another disk, and start again."
    if error.errno == errno.ESPIPE:
        return " A pipe cannot be read more than once: give the path of a file."
    return ""


def _fault(error: Exception) -> str:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = [f for f in frames if "afina" in f[0]] or frames
    place = f"{ours[-1][0].rpartition('/')[2]}:{ours[-1][1]}" if ours else "an unknown place"
    kind = type(error).__name__
    return f"This is a fault of afina's own ({kind} in {place}): {error}. Please report this line."
