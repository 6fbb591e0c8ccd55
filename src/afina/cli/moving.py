"""Carrying out a move: a folder that remembers, files that come over, jobs that are made once.

The folder is for people too: `files/` holds the training files as they were, `bases.toml` says
which base here stands for which base there, `moved.json` what became of what. It can be thrown
away: jobs that came over carry the id of the old one in their metadata and are found by it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from afina.cli.client import Client
from afina.errors import AfinaError, BadSettings, NotFound, Unavailable
from afina.service.moving_plan import MARK, PlannedJob, Wishes, bases_of, plan_jobs
from afina.service.moving_source import Source, SourceRefused, write_whole

_JOBS: Final = "/v1/fine_tuning/jobs"
_OVER: Final = ("failed", "cancelled")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LONGEST_NAME: Final = 255
_TABLE: Final = "bases.toml"
_HEAD: Final = """# Which base model here stands for which one there. Those that are here:
# afina models list; others come with: afina models pull. Jobs whose line is empty are left out.
"""
Tell = Callable[[str], None]


@dataclass
class Line:
    """A job of the plan: its files here, and what was made of it."""

    job: PlannedJob
    files: dict[str, Path] = field(default_factory=dict)
    estimate: dict[str, Any] | None = None
    made: dict[str, Any] | None = None
    left_out: str | None = None
    waits: str | None = None
    """What has to happen before it can be created."""


class Move:
    """One move, from `source` into the server of `client`, remembered in `folder`."""

    def __init__(self, source: Source, client: Client, folder: Path, tell: Tell) -> None:
        self.folder = folder
        self._source = source
        self._client = client
        self._tell = tell
        try:
            (folder / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BadSettings(f"{folder} cannot be made: {error.strerror}.") from None
        self._moved = self._read_moved()

    def plan(self, wishes: Wishes) -> list[Line]:
        """Reads the account, downloads what is needed, and says what can be done."""
        jobs = self._source.jobs()
        write_whole(self.folder / "account.json", {"base_url": self._source.base_url, "jobs": jobs})
        unknown = set(wishes.only) - {str(job["id"]) for job in jobs}
        if unknown:
            raise NotFound(f"The source has no job {', '.join(sorted(unknown))}.")
        bases = [b for b in self._client.get("/v1/afina/bases")["data"] if b.get("admitted")]
        if not bases:
            raise Unavailable(
                "There is no base model here yet to tune.",
                remedy="Fetch one: afina models pull smollm2-135m-instruct",
            )
        table = self._table(bases_of(jobs), bases)
        lines = [Line(job, left_out=job.left_out) for job in plan_jobs(jobs, table, wishes)]
        known = {base["id"] for base in bases}
        for line in lines:
            if line.left_out is None:
                line.left_out = self._gathered(line, known)
        self._leave_out_children(lines)
        return lines

    def create(self, lines: list[Line]) -> None:
        """Makes the jobs, oldest first, each once. What could not be made says why."""
        for line in lines:
            if line.left_out is not None:
                continue
            try:
                self._create(line)
            except Unavailable:
                raise
            except AfinaError as error:
                line.left_out = f"refused here: {error.one_line()}"

    def take_completions(self) -> dict[str, dict[str, Any]]:
        """Stored completions become training files here, one a model; those known are not asked
        for again. Raises SourceRefused or NotFound where the source keeps none."""
        path = self.folder / "completions.jsonl"
        kept = _kept(path)
        known = {str(entry["id"]) for entry in kept}
        with path.open("a", encoding="utf-8") as file:
            for completion in self._source.completions():
                if str(completion.get("id")) in known:
                    continue
                stored = self._source.stored(completion)
                entry: dict[str, Any] = {"id": stored.id, "model": stored.model, "row": stored.row}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()
                kept.append(entry)
        by_model: dict[str, list[dict[str, Any]]] = {}
        for entry in kept:
            by_model.setdefault(entry["model"], []).append(entry)
        return {model: self._rows_file(model, found) for model, found in sorted(by_model.items())}

    def _gathered(self, line: Line, known: set[str]) -> str | None:
        """Downloads the files of a job; the reason where it cannot be done."""
        job = line.job
        if job.parent is None and job.model not in known:
            return f"{job.model} is no base model here: see bases.toml"
        for kind in ("training_file", "validation_file"):
            file_id = getattr(job, kind)
            if file_id is None:
                continue
            try:
                line.files[kind] = self._fetched(str(file_id))
            except (NotFound, SourceRefused) as error:
                return (
                    f"{file_id} cannot be downloaded ({error.message}): put it into "
                    f"{self.folder / 'files' / f'{str(file_id)[:100]}.jsonl'} and run this again"
                )
        return None

    def _fetched(self, file_id: str) -> Path:
        if _ID.fullmatch(file_id) is None:
            raise NotFound("that is no file's id")
        target = self.folder / "files" / f"{file_id}.jsonl"
        if not target.exists():
            told = self._source.file(file_id)
            size, name = told.get("bytes"), told.get("filename")
            self._tell(f"Downloading {file_id} …")
            self._source.download(file_id, target, size if isinstance(size, int) else None)
            if isinstance(name, str) and _is_name(name):
                self._remember("names", target.name, name)
        return target

    def _leave_out_children(self, lines: list[Line]) -> None:
        """A tune whose parent is left out, and is not here yet, cannot be made either."""
        reasons = {line.job.source: line for line in lines}
        for line in lines:
            parent = reasons.get(line.job.parent or "")
            if line.left_out or parent is None or parent.left_out is None:
                continue
            if self._here(parent.job) is None:
                line.left_out = f"the job that it goes on from, {parent.job.source}, is left out"

    def _create(self, line: Line) -> None:
        job, here = line.job, self._here(line.job)
        if here is not None and here["status"] not in _OVER:
            line.made = here
            return
        model = job.model
        if job.parent is not None:
            model = self._parent_model(line)
            if model is None:
                return
        body: dict[str, Any] = {**job.body, "model": model}
        for kind, path in line.files.items():
            body[kind] = self._uploaded(path)
        again = f"-after-{here['id']}" if here is not None else ""
        key = f"moving-in-{job.source}{again}"
        line.made = self._client.post(_JOBS, body, idempotency_key=key[:255])
        self._remember("jobs", job.source, line.made["id"])

    def _parent_model(self, line: Line) -> str | None:
        parent = self._find_here(line.job.parent or "")
        if parent is None or parent["status"] in _OVER:
            line.waits = f"waits for {line.job.parent}, which has no tuned model here"
            return None
        if parent["status"] != "succeeded":
            line.waits = f"waits for {parent['id']}: run this again when it has succeeded"
            return None
        return str(parent["fine_tuned_model"])

    def _here(self, job: PlannedJob) -> dict[str, Any] | None:
        return self._find_here(job.source)

    def _find_here(self, source: str) -> dict[str, Any] | None:
        """The newest job here that was made for the source's, by memory or by its mark."""
        known = self._moved["jobs"].get(source)
        if known is not None:
            try:
                return self._client.get(f"{_JOBS}/{known}")
            except NotFound:
                self._moved["jobs"].pop(source)
        found = self._client.get(_JOBS, limit=1, **{f"metadata[{MARK}]": source})["data"]
        if not found:
            return None
        self._remember("jobs", source, found[0]["id"])
        return dict(found[0])

    def _uploaded(self, path: Path) -> str:
        known = self._moved["files"].get(path.name)
        if known is not None:
            try:
                return str(self._client.get(f"/v1/files/{known}")["id"])
            except NotFound:
                self._moved["files"].pop(path.name)
        name = self._moved["names"].get(path.name)
        file_id = str(self._client.upload(path, "fine-tune", name)["id"])
        self._remember("files", path.name, file_id)
        return file_id

    def _rows_file(self, model: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [entry["row"] for entry in entries if entry["row"] is not None]
        told: dict[str, Any] = {"rows": len(rows), "left_out": len(entries) - len(rows)}
        if not rows:
            return told
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-")[:80] or "unknown"
        # The number of rows is in the name: more of them are another file.
        path = self.folder / "files" / f"stored-{slug}-{len(rows)}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        return told | {"file": self._uploaded(path)}

    def _table(self, wanted: list[str], bases: list[dict[str, Any]]) -> dict[str, str]:
        """The table of bases, with a line for each that was not in it yet."""
        path = self.folder / _TABLE
        text = path.read_text() if path.exists() else _HEAD
        try:
            table = {str(k): str(v) for k, v in tomllib.loads(text).items()}
        except tomllib.TOMLDecodeError as error:
            raise BadSettings(
                f"{path} cannot be read: {error}.", remedy='Lines look like "name" = "base".'
            ) from None
        for name in wanted:
            if name not in table:
                table[name] = _guess(name, bases)
                text = text.rstrip("\n") + f"\n{json.dumps(name)} = {json.dumps(table[name])}\n"
        path.write_text(text)
        return table

    def _read_moved(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads((self.folder / "moved.json").read_text())
        except FileNotFoundError:
            found = {}
        except ValueError:
            raise BadSettings(
                f"{self.folder / 'moved.json'} is not whole.",
                remedy="Delete it: jobs that came over are found by their metadata.",
            ) from None
        names = dict(found.get("names", {}))
        if found.get("server", self._client.url) != self._client.url:
            found = {}  # another server: what is remembered of the first is of no use there
        here = {kind: dict(found.get(kind, {})) for kind in ("jobs", "files")}
        return {**here, "names": names}

    def _remember(self, kind: str, there: str, here: str) -> None:
        self._moved[kind][there] = here
        write_whole(self.folder / "moved.json", {"server": self._client.url, **self._moved})


def _is_name(text: str) -> bool:
    """Whether a file may be called so here; one that may not is called by its id."""
    return text.isprintable() and len(text) <= _LONGEST_NAME and text.strip("./\\ ") != ""


def summary(lines: list[Line]) -> Mapping[str, int]:
    """How many jobs are made, wait, and are left out."""
    return Counter(
        "left out" if line.left_out else "waiting" if line.waits else "here" for line in lines
    )


def with_estimates(lines: list[Line], estimated: Callable[[Line], Any]) -> list[Line]:
    """The lines with what each would take; a file that cannot be used leaves its job out."""
    done = []
    for line in lines:
        if line.left_out is None:
            try:
                line = replace(line, estimate=estimated(line))
            except AfinaError as error:
                line = replace(line, left_out=f"its training file: {error.one_line()}")
        done.append(line)
    return done


def _guess(name: str, bases: list[dict[str, Any]]) -> str:
    """An alias of that name, else the only base that there is."""
    for base in bases:
        if name == base["id"] or name in base.get("aliases", ()):
            return str(base["id"])
    return str(bases[0]["id"]) if len(bases) == 1 else ""


def _kept(path: Path) -> list[dict[str, Any]]:
    """The completions that came before; a last line that was torn is dropped from the file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    kept: list[dict[str, Any]] = []
    for line in lines:
        if not line.endswith("\n"):
            path.write_text("".join(lines[: len(kept)]), encoding="utf-8")
            break
        kept.append(json.loads(line))
    return kept
