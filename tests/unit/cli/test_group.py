"""How commands end: one line, an exit code, never a stack trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from afina.cli.group import AfinaGroup
from afina.errors import InvalidRequest

Afina = Callable[..., Result]


def _children_cpu_s() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


def test_help_takes_less_than_a_second_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from afina.cli.main import app\n"
        "try:\n    app(['--help'], prog_name='afina')\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'httpx2', 'sqlalchemy', 'fastapi', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    # processor time: what the command costs, however busy the machine is
    times = []
    for _ in range(3):
        started = _children_cpu_s()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        times.append(_children_cpu_s() - started)
        assert "Usage: afina" in done.stdout
        assert done.stderr.strip() == "[]"
    assert min(times) < 1.0, times


def test_an_interruption_while_modules_are_loaded_is_no_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer(cls=AfinaGroup)

    @app.command()
    def one() -> None:  # so Python wraps what comes while a class is made
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    @app.command()
    def other() -> None: ...  # one command alone would be no group

    with pytest.raises(SystemExit) as ended:
        app(["one"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "afina: Stopped.\n")


def test_a_full_disk_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(cls=AfinaGroup)

    @app.command()
    def one() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @app.command()
    def other() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "f.jsonl")

    for word in ("one", "other"):
        with pytest.raises(SystemExit) as ended:
            app([word])
        assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "afina: No space left on device. Make room, or write to another disk, and start again.",
        "afina: f.jsonl: Permission denied.",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobz"],
        ["jobs", "create"],
        ["files", "upload", "no-such-file.jsonl"],
        ["jobs", "list", "--limit", "many"],
        ["jobs", "list", "--colour"],
        ["models", "export", "x", "--to", "y", "--format", "onnx"],
        ["usage", "--since", "yesterday"],
    ],
)
def test_a_wrong_command_line_is_one_line_with_the_way_to_help_and_exit_code_2(
    afina: Afina, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFINA_API_KEY", "sk-afina-test")
    done = afina(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--help`" in done.stderr


def test_a_group_alone_shows_its_commands_and_nothing_else(afina: Afina) -> None:
    done = afina("disk")
    assert done.exit_code == 2
    assert "clean" in done.stdout
    assert done.stderr == ""


def test_an_error_of_ours_is_one_line_with_its_remedy_and_exit_code_1(afina: Afina) -> None:
    done = afina("files", "list")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "There is no API key" in done.stderr
    assert "afina up" in done.stderr


def test_a_bad_setting_is_named_with_where_to_mend_it(
    afina: Afina, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFINA_PORT", "many")
    done = afina("jobs", "list")
    assert done.exit_code == 1
    assert "port" in done.stderr
    assert "AFINA_PORT" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InvalidRequest("No.", remedy="Do this."), 1, "afina: No. Do this.\n"),
        (FileNotFoundError(2, "No such file", "x.csv"), 1, "afina: x.csv: No such file.\n"),
        (OSError(29, "Illegal seek"), 1, "read more than once: give the path of a file.\n"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("by\nzero"), 1, "fault of afina's own (ZeroDivisionError"),
    ],
)
def test_whatever_goes_wrong_ends_in_one_line(error: BaseException, code: int, text: str) -> None:
    import typer

    program = typer.Typer(cls=AfinaGroup, pretty_exceptions_enable=False)

    @program.command()
    def fail() -> None:
        raise error

    @program.command()
    def other() -> None:
        pass

    done = CliRunner().invoke(program, ["fail"])
    assert done.exit_code == code
    assert text in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert "Traceback" not in done.output


def test_no_server_is_said_in_one_line(
    afina: Afina, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AFINA_API_KEY", "sk-afina-test")
    monkeypatch.setenv("AFINA_BASE_URL", "http://127.0.0.1:1")
    done = afina("models", "list")
    assert done.exit_code == 1
    assert done.stderr == (
        "afina: No server answers at http://127.0.0.1:1. Start one with `afina up`, or name it "
        "with --server or AFINA_BASE_URL.\n"
    )


def test_the_generated_page_of_commands_is_fresh() -> None:
    from afina.cli.reference import reference

    page = Path(__file__).parents[3] / "docs" / "cli.md"
    assert page.read_text() == reference(), "run `make docs`"
