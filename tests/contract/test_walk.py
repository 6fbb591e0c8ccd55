"""Upload, tune, ask, delete: the whole road with the official client against `afina up`.

The client of the main environment walks it on a tiny model; the three versions that are supported
walk it on the starter model, each in an environment of its own (`make contract`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.live import BASE, LivePlatform
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
WALK = Path(__file__).parent / "walk.py"
VERSIONS = ("3.54.0", "2.54.0", "1.109.1")
TIMEOUT_S = 280
STARTER_TIMEOUT_S = 1000
"""The starter model is fifty times as large as the tiny one."""
AS_USERS_RUN_IT = {
    "AFINA_TRAINING__PRECISION": "auto",
    "AFINA_TRAINING__THREADS": "0",
    "AFINA_ENGINE__THREADS": "0",
}


def walk(python: Path | str, platform: LivePlatform, model: str, timeout_s: int = TIMEOUT_S) -> str:
    """What the walk prints; fails with it if the walk fails."""
    key = (platform.data / "api-key").read_text().strip()
    where = ["--base-url", f"http://127.0.0.1:{platform.port}/v1", "--api-key", key]
    done = subprocess.run(
        [str(python), str(WALK), *where, "--model", model, "--timeout", str(timeout_s)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s + 60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_walks_the_whole_road(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / BASE, base_id=BASE)
    with LivePlatform(tmp_path) as platform:
        assert "done:" in walk(sys.executable, platform, BASE)


@pytest.mark.slow
@pytest.mark.starter
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_client_walks_the_whole_road(
    version: str, starter_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(starter_dir, tmp_path / "models" / starter_dir.name)
    with LivePlatform(tmp_path, AS_USERS_RUN_IT) as platform:
        python = client_python(version)
        told = walk(python, platform, starter_dir.name, STARTER_TIMEOUT_S)
    assert f"[openai {version}] done:" in told


def client_python(version: str) -> Path:
    """The interpreter of an environment that holds that version of the client and nothing of
    ours; made once below `.cache/clients`."""
    folder = ROOT / ".cache" / "clients" / version
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"openai=={version}"], check=True)
        (folder / "ready").touch()
    return python
