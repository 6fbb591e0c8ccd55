"""What the README shows is run: its Python against scripted answers, its commands' options, its
settings, its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.unit.cli.conftest import ScriptedServer, server  # noqa: F401

import afina
from afina.cli.main import app
from afina.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NAME = "ft:smollm2-135m-instruct:local::abcdefgh"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [text for name, text in found if name == language]


def job(status: str, model: str | None = None) -> dict[str, Any]:
    return {"id": "ftjob-1", "object": "fine_tuning.job", "status": status} | {
        "fine_tuned_model": model
    }


def test_the_python_in_the_readme_runs_with_the_official_client(
    server: ScriptedServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (program,) = blocks("python")
    assert "http://127.0.0.1:8383/v1" in program
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".afina").mkdir()
    (tmp_path / ".afina" / "api-key").write_text("sk-afina-x\n")
    (tmp_path / "clean.jsonl").write_text("{}\n")
    server.say("POST /v1/files", {"id": "file-1", "object": "file"})
    server.say("POST /v1/fine_tuning/jobs", job("validating_files"))
    server.say("GET /v1/fine_tuning/jobs/ftjob-1", job("running"), job("succeeded", NAME))
    server.stream("A court", " of servants.")
    monkeypatch.setattr("time.sleep", lambda _: None)
    exec(program.replace("http://127.0.0.1:8383", server.url), {})
    assert capsys.readouterr().out == "A court of servants."
    assert server.asked[1].json == {"model": "smollm2-135m-instruct", "training_file": "file-1"}
    assert server.asked[-1].json["model"] == NAME


def test_every_command_in_the_readme_exists_with_its_options() -> None:
    found = [line for block in blocks("") for line in block.splitlines() if "afina " in line]
    shown = [shlex.split(line) for line in found if line.startswith("afina ")]
    assert len(shown) >= 7
    for words in shown:
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        options = {name for param in command.params for name in getattr(param, "opts", [])}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_the_settings_in_the_readme_are_settings(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "afina.toml").write_text(text)
    settings = Settings.load(data=tmp_path)
    assert settings.model_aliases == {"gpt-4o-mini-2024-07-18": "smollm2-135m-instruct"}
    assert str(settings.price_of("smollm2-135m-instruct").training) == "0.30"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/map.md"])
def test_links_lead_to_pages_that_are_there(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert (folder / target).exists(), f"{page} links to {target}"


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == afina.__version__


def test_benchmarks_are_run_as_modules_and_the_docs_name_those_there_are() -> None:
    there = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    pages = [ROOT / "Makefile", ROOT / "README.md", ROOT / "CHANGELOG.md"]
    pages += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.py")]
    named = {n for page in pages for n in re.findall(r"-m benchmarks\.(\w+)", page.read_text())}
    assert named
    assert named <= set(there)
    for page in pages:
        assert not re.search(r"python benchmarks/\w+\.py", page.read_text()), page
    for name, text in there.items():
        bare = set(re.findall(r"^(?:from|import) (\w+)", text, re.M)) & set(there)
        assert not bare, f"{name} imports {bare} as if it were run as a file"
