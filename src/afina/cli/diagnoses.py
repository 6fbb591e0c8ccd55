"""What `afina doctor` looks at: one small function a thing, each with a verdict and a remedy.

Nothing is changed and nothing is started. Every function takes what it needs, so that tests can
show it a machine that is ill.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from afina.cli.terminal import in_bytes, in_count
from afina.service.rates import rate_for
from afina.settings import STARTER, Settings

if TYPE_CHECKING:
    from afina.domain.models import BaseModel

Verdict = Literal["ok", "note", "wrong"]

_GB: Final = 1000**3
_LITTLE_DISK: Final = 5 * _GB
_PULL: Final = f"Fetch one: `afina models pull {STARTER}`."
_RUNTIME_BYTES: Final = 1.6e9
"""What api, worker, and two processes with torch take before any weights."""
_BYTES_A_PARAMETER: Final = 6.0
"""bf16 weights in the engine and in a trainer, and what a step of training keeps beside them."""
_LONG_STEP_S: Final = 10.0
_ENGINE_LOG: Final = "{0}/logs/engine.log"
_RESTART: Final = "`afina up` ends an engine that is hung and starts it again by itself."
_FLAGS: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at. `wrong` keeps the platform from working; a `note` does not."""

    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None


def python(version: tuple[int, int] = (sys.version_info[0], sys.version_info[1])) -> Diagnosis:
    """Whether this Python is new enough."""
    text = f"{version[0]}.{version[1]} in {sys.prefix}"
    if version < (3, 11):
        return Diagnosis("Python", "wrong", text, "afina needs Python 3.11 or newer.")
    return Diagnosis("Python", "ok", text)


def packages() -> Diagnosis:
    """Which torch and transformers are installed; read from their records, not loaded."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("torch", "transformers"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return Diagnosis("packages", "wrong", f"{name} is missing.", "Run `make install`.")
    return Diagnosis("packages", "ok", ", ".join(found))


def processor(cores: int, flags: Sequence[str]) -> Diagnosis:
    """How many cores there are, and whether they multiply bf16 numbers themselves."""
    known = [flag for flag in _FLAGS if flag in flags]
    text = f"{cores} cores" + (f" with {', '.join(known)}" if known else "")
    if flags and not {"avx512_bf16", "amx_bf16"} & set(flags):
        return Diagnosis(
            "processor",
            "note",
            f"{text}; no bf16 arithmetic of their own, so jobs take longer than on those that "
            "have it",
            "Nothing to mend: afina computes in what is quickest here.",
        )
    return Diagnosis("processor", "ok", text)


def memory(total: int, available: int, bases: Sequence[BaseModel]) -> Diagnosis:
    """How much memory there is, and how large a model may be to be tuned and served in it."""
    largest = max(0.0, (available - _RUNTIME_BYTES) / _BYTES_A_PARAMETER)
    text = (
        f"{in_bytes(available)} free of {in_bytes(total)}: bases of up to about "
        f"{_in_parameters(largest)} parameters can be tuned and served together"
    )
    for base in bases:
        if base.parameters > largest:
            return Diagnosis(
                "memory",
                "note",
                f"{text}; {base.id} has {in_count(base.parameters)}",
                "Free memory, or tune a smaller base.",
            )
    return Diagnosis("memory", "ok", text)


def disk(data: Path, free: int) -> Diagnosis:
    """Whether checkpoints and blobs have room."""
    text = f"{in_bytes(free)} free at {data}"
    if free < _LITTLE_DISK:
        return Diagnosis("disk", "note", text, "Free some, or choose another place with --data.")
    return Diagnosis("disk", "ok", text)


def disk_usage(settings: Settings) -> list[Diagnosis]:
    """What holds the data directory, by kind, and whether its budget is spent."""
    from sqlalchemy.exc import SQLAlchemyError

    from afina.service.disk import measure
    from afina.store.database import Database
    from afina.store.migrations import HEAD

    if not settings.data.is_dir():
        return []
    opened = Database.open(settings.database_url)
    try:
        missing = opened.path is not None and not opened.path.exists()
        if missing or opened.schema_revision() != HEAD:
            found = measure(settings, None)
        else:
            with opened.read() as tx:
                found = measure(settings, tx)
    except (SQLAlchemyError, OSError):
        found = measure(settings, None)  # what ails the database is said elsewhere
    finally:
        opened.close()
    sizes = sorted(found.kinds.items(), key=lambda one: -one[1])
    kinds = ", ".join(f"{kind} {in_bytes(size)}" for kind, size in sizes if size)
    text = f"{in_bytes(found.total)} used: {kinds}" if found.total else "nothing used yet"
    if found.kept_answers:
        text += f"; of the database stored answers {in_bytes(found.kept_answers)}"
    spent = found.max_bytes is not None and found.total > found.max_bytes
    if spent or found.free < found.min_free_bytes:
        remedy = "Uploads and jobs are refused: `afina disk clean`, or change [disk]."
        return [Diagnosis("disk", "wrong", text, remedy)]
    return [Diagnosis("disk", "ok", text)]


def data_directory(data: Path) -> Diagnosis:
    """Whether the data directory is there, ours to write, and closed to others."""
    if not data.exists():
        parent = next(path for path in data.parents if path.exists())
        if not os.access(parent, os.W_OK):
            return Diagnosis(
                "data", "wrong", f"{data} cannot be made.", f"Make {parent} writable for you."
            )
        return Diagnosis("data", "note", f"{data} is not there yet.", "`afina up` makes it.")
    if not data.is_dir() or not os.access(data, os.W_OK | os.X_OK):
        return Diagnosis(
            "data", "wrong", f"{data} is not a directory that you can write to.", "Mend its mode."
        )
    key = data / "api-key"
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        return Diagnosis(
            "data", "wrong", f"{key} can be read by others.", f"Run `chmod 600 {key}`."
        )
    return Diagnosis("data", "ok", f"{data}")


def database(settings: Settings) -> Diagnosis:
    """Whether the database is sound and of this version's schema."""
    from sqlalchemy.exc import SQLAlchemyError

    from afina.store.database import Database
    from afina.store.dialects import check_health
    from afina.store.migrations import HEAD

    opened = Database.open(settings.database_url)
    if opened.path is not None and not opened.path.exists():
        return Diagnosis("database", "note", "not there yet.", "`afina up` makes it.")
    try:
        fault = check_health(opened.engine)
        revision = None if fault else opened.schema_revision()
    except (SQLAlchemyError, OSError) as error:
        fault, revision = str(error).splitlines()[0], None
    finally:
        opened.close()
    if fault is not None:
        return Diagnosis(
            "database", "wrong", f"{opened.path} is damaged: {fault}.", "Restore a backup."
        )
    if revision != HEAD:
        return Diagnosis(
            "database", "note", f"schema {revision}, this version's is {HEAD}.",
            "`afina up` brings it up to date, if it is older.",
        )  # fmt: skip
    return Diagnosis("database", "ok", f"sound, schema {revision}")


def bases_here(settings: Settings, bases: Sequence[BaseModel]) -> list[Diagnosis]:
    """Which base models are here, and which of them may be tuned."""
    if not bases:
        return [Diagnosis("models", "wrong", f"none in {settings.models}.", _PULL)]
    found = []
    for base in bases:
        if not base.admitted:
            found.append(
                Diagnosis("models", "note", f"{base.id} was not admitted: {base.refusal}", _PULL)
            )
            continue
        rate = rate_for(settings, base)
        speed = f", trains {in_count(round(rate.tokens_per_s))} tokens/s here" if rate else ""
        found.append(
            Diagnosis("models", "ok", f"{base.id}: {in_count(base.parameters)} parameters{speed}")
        )
    known = {base.id for base in bases if base.admitted}
    for alias, target in settings.model_aliases.items():
        if target not in known:
            found.append(
                Diagnosis(
                    "models", "wrong", f"the alias {alias} means {target}, which is not here.",
                    f"Pull {target}, or change model_aliases in {settings.data / 'afina.toml'}.",
                )
            )  # fmt: skip
    return found


def server(settings: Settings) -> Diagnosis:
    """Whether the server answers, and knows the key."""
    from afina.cli.client import Client
    from afina.cli.options import server_of
    from afina.errors import AfinaError

    url = server_of(settings)
    try:
        with Client(url, settings.key_for_commands()) as client:
            client.get("/v1/models")
    except AfinaError as error:
        verdict: Verdict = "note" if error.code == "unreachable" else "wrong"
        if error.status == 500 and error.code is None:
            verdict = "note"  # there is no key before the first start
        return Diagnosis("server", verdict, error.message, error.remedy)
    return Diagnosis("server", "ok", f"answers at {url}")


def engine(settings: Settings, timeout_s: float = 5.0) -> list[Diagnosis]:
    """Whether the engine answers on its socket and gets on with its work, and whether it had to be
    started again."""
    from afina.errors import AfinaError, EngineFailed
    from afina.serving.client import BlockingEngineClient

    try:
        health = BlockingEngineClient(settings.engine_socket, timeout_s=timeout_s).health()
    except EngineFailed as error:
        remedy = f"{_ENGINE_LOG} says why; {_RESTART}"
        found = [Diagnosis("engine", "wrong", error.message, remedy.format(settings.data))]
    except AfinaError as error:
        found = [Diagnosis("engine", "note", error.message, error.remedy)]
    else:
        text = (
            f"{health.status}, {health.precision}, {len(health.bases)} bases and "
            f"{len(health.adapters)} adapters in memory"
        )
        if "resident" in health.memory:
            parts = ("weights", "caches", "adapters")
            weights, caches, adapters = (in_bytes(health.memory.get(part, 0)) for part in parts)
            text += (
                f"; {in_bytes(health.memory['resident'])} resident: weights {weights}, adapters "
                f"{adapters}, caches that may grow to {caches}"
            )
        if health.step_s >= _LONG_STEP_S:
            text = f"{text}; the present step has taken {health.step_s:.0f} s so far"
            remedy = f"Wait, or see {_ENGINE_LOG}: {_RESTART}".format(settings.data)
            found = [Diagnosis("engine", "note", text, remedy)]
        else:
            found = [Diagnosis("engine", "ok", text)]
    return found + _restarts(settings)


def _restarts(settings: Settings) -> list[Diagnosis]:
    from datetime import datetime

    from afina.serving.restarts import Restarts

    seen = Restarts.read(settings.engine_folder)
    if not seen.ended + seen.hung:
        return []
    when = datetime.fromtimestamp(seen.last).astimezone().isoformat(" ", "seconds")
    text = (
        f"started again {seen.ended + seen.hung} times since `afina up` began, {seen.hung} of them "
        f"because it was hung; last at {when}: {seen.reason}"
    )
    remedy = f"See {_ENGINE_LOG}.".format(settings.data)
    return [Diagnosis("engine", "note", text, remedy)]


def vllm(settings: Settings, bases: Sequence[BaseModel]) -> list[Diagnosis]:
    """Whether the vLLM server that is set answers, for which bases, and takes adapters."""
    told = settings.engine.vllm
    if told is None:
        return []
    from afina.errors import AfinaError
    from afina.serving.vllm.look import look

    try:
        seen = look(told)
    except AfinaError as error:
        remedy = "Start it (examples/vllm/serve.py does), or mend AFINA_ENGINE__VLLM__URL."
        return [Diagnosis("vLLM", "wrong", error.message, remedy)]
    wanted = told.models or {base.id: base.id for base in bases}
    served = [base for base, name in wanted.items() if name in seen.names]
    text = f"{seen.version} at {told.url}, {seen.adapters} adapters; answers for "
    found = [Diagnosis("vLLM", "ok", text + ", ".join(served))]
    if not served:
        names = ", ".join(seen.names) or "nothing"
        found = [
            Diagnosis(
                "vLLM", "wrong", f"{text}no base of this machine: it lists {names}.",
                "Start it with --served-model-name BASE, or set AFINA_ENGINE__VLLM__MODELS.",
            )
        ]  # fmt: skip
    if not (seen.takes_adapters and seen.has_lora):
        lacks = "no routes to load adapters" if not seen.takes_adapters else "no LoRA"
        found.append(
            Diagnosis(
                "vLLM", "wrong", f"has {lacks}: it can answer for bases, not for tunes.",
                "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
            )
        )  # fmt: skip
    if seen.is_plain:
        found.append(
            Diagnosis(
                "vLLM", "note", "its key travels unencrypted to another machine.",
                "Put TLS in front of it, and an https:// address into AFINA_ENGINE__VLLM__URL.",
            )
        )  # fmt: skip
    return found


def _in_parameters(count: float) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"
