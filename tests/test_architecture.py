"""The house's laws: layers, fences, sizes, and that every package is on the map."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "afina"
ROWS = {
    "errors": 0,
    "settings": 0,
    "inside_settings": 0,
    "outside_settings": 0,
    "domain": 1,
    "language": 2,
    "text": 2,
    "model": 2,
    "data": 3,
    "store": 4,
    "training": 4,
    "serving": 4,
    "evaluation": 4,
    "service": 5,
    "pipeline": 6,
    "api": 7,
    "web": 7,
    "cli": 8,
}
SIBLINGS_ALLOWED = {
    ("evaluation", "serving"),
    ("settings", "errors"),
    ("settings", "inside_settings"),
    ("settings", "outside_settings"),
    ("inside_settings", "outside_settings"),
}
WITHOUT_TORCH = [
    "afina.errors",
    "afina.settings",
    "afina.domain.runs",
    "afina.language",
    "afina.text",
    "afina.data",
    "afina.store",
    "afina.serving.client",
    "afina.service",
    "afina.pipeline",
    "afina.api.app",
    "afina.web.app",
    "afina.cli.main",
]
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "manager.py", "misc.py"}
TORCH = {"torch", "transformers", "peft", "accelerate", "gguf"}
TORCH_ROOMS = {"model", "training", "serving", "evaluation", "cli"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield node.module or "", node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def test_a_module_imports_only_from_rows_below_its_own() -> None:
    faults = []
    for path in sources():
        here = room(path)
        if here == "__init__":
            continue
        for name, line in imports(ast.parse(path.read_text())):
            parts = name.split(".")
            if parts[0] != "afina" or len(parts) < 2 or parts[1] not in ROWS:
                continue
            there = parts[1]
            if there == here or (here, there) in SIBLINGS_ALLOWED:
                continue
            if ROWS[there] >= ROWS[here]:
                faults.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {there}")
    assert not faults, "\n".join(faults)


def test_torch_is_named_only_in_the_rooms_that_may_load_it() -> None:
    faults = []
    for path in sources():
        if room(path) in TORCH_ROOMS:
            continue
        for name, line in imports(ast.parse(path.read_text())):
            if name.split(".")[0] in TORCH:
                faults.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not faults, "\n".join(faults)


def test_environment_is_read_in_settings_alone() -> None:
    faults = []
    for path in sources():
        if path.name == "settings.py" and path.parent == PACKAGE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"}:
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not faults, "\n".join(faults)


def test_clock_and_randomness_come_from_the_domain() -> None:
    """Outside the domain nobody asks for the wall time or for unseeded randomness."""
    faults = []
    for path in sources():
        if room(path) == "domain":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            if (node.value.id, node.attr) in {
                ("time", "time"),
                ("datetime", "now"),
                ("datetime", "utcnow"),
                ("uuid", "uuid4"),
                ("secrets", "token_hex"),
                ("secrets", "token_urlsafe"),
            }:
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_can_be_seen_at_once(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES, f"{path.name} has grown too big: split it by noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Without the signature: a command's is the list of its options.
            length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            assert length <= MAX_FUNCTION_LINES, (
                f"{node.name} in line {node.lineno}: {length} lines"
            )


def test_every_module_says_what_it_is_and_none_is_a_drawer() -> None:
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
        assert path.name not in FORBIDDEN_NAMES, f"{path}: name the noun"


def test_pickle_and_remote_code_appear_nowhere() -> None:
    faults = []
    for path in sources():
        for name, line in imports(ast.parse(path.read_text())):
            if name.split(".")[0] in {"pickle", "joblib", "dill", "cloudpickle", "marshal"}:
                faults.append(f"{path.relative_to(ROOT)}:{line}: {name}")
        for number, text in enumerate(path.read_text().splitlines(), 1):
            if "trust_remote_code=True" in text or "torch.load(" in text or "torch.save(" in text:
                faults.append(f"{path.relative_to(ROOT)}:{number}: {text.strip()}")
    assert not faults, "\n".join(faults)


@pytest.mark.long
def test_packages_without_torch_do_not_load_it() -> None:
    program = "import sys, importlib\n" + "".join(
        f"importlib.import_module({name!r})\n" for name in WITHOUT_TORCH
    )
    program += "print(sorted(m for m in ('torch', 'transformers') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_package_is_on_the_map() -> None:
    text = (ROOT / "docs" / "map.md").read_text()
    for path in sorted(PACKAGE.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`{path.name}`" in text, f"docs/map.md does not name {path.name}"


def test_every_test_file_holds_a_test() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = [
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        assert any(n.startswith(("test_", "Test")) or n.endswith("Machine") for n in names), path
