"""`afina doctor`: looks at machine, data directory, models, settings and processes, and says what
to do about what it finds. Exit code 1 if something keeps the platform from working."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, load_settings
from afina.cli.terminal import print_json

if TYPE_CHECKING:
    from afina.cli import diagnoses
    from afina.domain.models import BaseModel

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def doctor(
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Say what is missing or wrong, what to do about it, and what fits into memory."""
    from afina.cli import diagnoses
    from afina.cli.diagnoses import Diagnosis
    from afina.errors import BadSettings

    found = [diagnoses.python(), diagnoses.packages()]
    try:
        settings = load_settings(data, server)
    except BadSettings as error:
        found.append(Diagnosis("settings", "wrong", error.message, error.remedy))
    else:
        found.append(Diagnosis("settings", "ok", f"data directory {settings.data}"))
        from afina.cli.bases import local_bases

        bases = local_bases(settings)
        found += [
            _processor(),
            _kernels(),
            _memory(bases),
            _disk(settings.data),
            *diagnoses.disk_usage(settings),
            diagnoses.data_directory(settings.data),
            diagnoses.database(settings),
            *diagnoses.bases_here(settings, bases),
            diagnoses.server(settings),
            *diagnoses.engine(settings),
            *diagnoses.vllm(settings, bases),
        ]
    if json:
        print_json([asdict(diagnosis) for diagnosis in found])
    else:
        for diagnosis in found:
            remedy = f" {diagnosis.remedy}" if diagnosis.remedy else ""
            print(f"{_MARKS[diagnosis.verdict]}  {diagnosis.name:9}  {diagnosis.text}{remedy}")
    if any(diagnosis.verdict == "wrong" for diagnosis in found):
        raise typer.Exit(1)


def _processor() -> diagnoses.Diagnosis:
    import psutil

    from afina.cli import diagnoses

    flags: list[str] = []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                flags = line.partition(":")[2].split()
                break
    return diagnoses.processor(psutil.cpu_count() or 1, flags)


def _kernels() -> diagnoses.Diagnosis:
    from afina.cli.diagnoses import Diagnosis
    from afina.model.kernels.library import load

    found = load()
    verdict: Literal["ok", "note"] = "note" if found.remedy else "ok"
    return Diagnosis("kernels", verdict, found.text, found.remedy)


def _memory(bases: list[BaseModel]) -> diagnoses.Diagnosis:
    import psutil

    from afina.cli import diagnoses

    seen = psutil.virtual_memory()
    return diagnoses.memory(seen.total, seen.available, bases)


def _disk(data: Path) -> diagnoses.Diagnosis:
    from afina.cli import diagnoses

    place = next(path for path in (data, *data.parents) if path.exists())
    return diagnoses.disk(data, shutil.disk_usage(place).free)
