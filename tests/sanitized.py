"""The kernels' tests with kernels that watch each access to memory and each undefined operation:

    python -m tests.sanitized [words for pytest]

Needs gcc with its libasan and libubsan (Debian's gcc has both). A finding ends the process with a
report that names the line of `source/*.c`. A thread's own room is exactly as large as was asked for
in such a library (`source/tile.h`), so that what reaches behind it is seen too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from afina.model.kernels import library
from afina.model.kernels.machine import compiler

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1")
TESTS = (
    "tests/unit/model/test_kernels.py",
    "tests/unit/model/test_adamw.py",
    "tests/unit/model/test_training_kernels.py",
    "tests/unit/serving/test_native.py",
    "tests/unit/training/test_own_kernels.py",
)
PATIENCE_S = 1800
"""Of one test: watched kernels take ten times as long."""


def pytest_configure() -> None:
    """Where this module is a plugin: kernels are compiled so that they watch themselves."""
    setattr(library, "_FLAGS", (*library._FLAGS, *FLAGS))  # noqa: B010 - it is final for others


def _preloaded(made_by: str, name: str) -> str:
    """Where the compiler keeps a library. Raises SystemExit where it has none."""
    asked = [made_by, f"-print-file-name={name}"]
    found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit(f"{made_by} has no {name}: install its sanitizers.")
    return found


def main() -> int:
    """Runs the tests; their exit code."""
    made_by = compiler()
    if made_by is None:
        raise SystemExit("no C compiler was found: apt-get install gcc.")
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(_preloaded(made_by, name) for name in ("libasan.so", "libubsan.so")),
        # Python itself keeps what it has until it ends
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.sanitized", "--capture=no", "-q"),
        f"--timeout={PATIENCE_S}",
        *(sys.argv[1:] or TESTS),
    ]
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
