"""The first part of a job's road: validate, tokenise, resolve; the job leaves it as `queued`.

Each stage is a function of files and settings alone, and finds its own earlier result by hash, so
a job that a dead worker left here is simply prepared again.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.job_errors import Which, job_error, kinds_differ, left_too_few
from afina.data.limits import limits_of
from afina.data.personal.detect import kinds_named
from afina.data.personal.redaction import RedactionReport
from afina.data.personal.stage import scrub
from afina.data.shards import ShardOptions, build_shards
from afina.domain.clock import day_of
from afina.domain.files import StoredFile
from afina.domain.jobs import Hyperparameters, JobError, JobStatus
from afina.domain.manifests import Manifest
from afina.domain.models import BaseModel
from afina.domain.runs import DataSpec, ParentSpec, RunPaths
from afina.domain.sayings import Said, say
from afina.errors import InvalidRequest, QuotaExceeded
from afina.pipeline import served_by
from afina.pipeline.follow import first_guess
from afina.pipeline.foresight import rate_of
from afina.pipeline.held import HeldLease
from afina.pipeline.moderate import Moderation
from afina.pipeline.patience import Patience
from afina.pipeline.resolve import Resolution, resolve_run
from afina.pipeline.run_files import write_json, write_spec
from afina.pipeline.survey import Looked, survey
from afina.pipeline.wire_events import EventWriter
from afina.service import bases
from afina.service.platform import Platform
from afina.service.preparing import PreparingNote
from afina.service.usage import hold_training
from afina.store import events, files, jobs
from afina.store.database import Tx
from afina.text.renderer import Renderer

log = structlog.get_logger()


class JobRefused(Exception):
    """The job cannot go on, for a reason that its user can do something about."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class _Source:
    which: Which
    file: StoredFile
    blob: Path


class Preparation:
    """One job on its way from `validating_files` to `queued`."""

    def __init__(self, platform: Platform, lease: HeldLease) -> None:
        self._platform = platform
        self._lease = lease
        self._job = lease.job
        self._writer = EventWriter(lease.job, platform.ids, platform.clock)
        self._paths = RunPaths(platform.settings.runs / lease.job.id)
        self._at = ""
        self._note = PreparingNote(self._paths.root, platform.clock)
        self._patience = Patience(platform.clock.monotonic, platform.settings.moderation.wait_s)
        self._guess: Callable[[float], int | None] = lambda _: None

    def run(self) -> None:
        """Walk the stages and leave the job queued. Raises JobRefused, LeaseLost, Cancelled."""
        base = self._base()
        unserved = served_by.refusal(self._platform.settings, self._job)
        if unserved is not None:
            raise JobRefused(unserved)
        renderer = Renderer.load(Path(base.path), day_of(self._job.created_at))
        sources = self._sources()
        self._stage("validating")
        reports = [self._validate(source, renderer) for source in sources]
        _refuse(kinds_differ(reports[0].kind, reports[-1].kind))
        self._stage("moderating")
        left_out = [self._moderate(source) for source in sources]
        for source, report, lines in zip(sources, reports, left_out, strict=True):
            _refuse(left_too_few(report, source.which, len(lines)))
        if self._platform.settings.redact.enabled:
            self._stage("redacting")
            sources = [self._scrub(source) for source in sources]
            reports = [self._validate(source, renderer) for source in sources]
        self._stage("comparing")
        self._survey(sources, reports)
        self._stage("tokenising")
        data = [
            self._tokenise(source, report, renderer, lines)
            for source, report, lines in zip(sources, reports, left_out, strict=True)
        ]
        hyperparameters = self._resolve(base, renderer, data)
        self._leave(hyperparameters)

    def _base(self) -> BaseModel:
        base = bases.get_base(self._platform, self._job.model)
        if base is None or not base.admitted:
            reason = base.refusal if base is not None else "it is no longer on this machine"
            raise JobRefused(
                JobError(
                    "model_not_available",
                    f"The base model {self._job.model} cannot be tuned: {reason}. "
                    "`afina models list` shows what can.",
                )
            )
        # The record may have been written before the data directory came to where it is now.
        return replace(base, path=str(self._platform.settings.models / base.id))

    def _sources(self) -> list[_Source]:
        found = [self._source("training_file", self._job.training_file)]
        if self._job.validation_file is not None:
            found.append(self._source("validation_file", self._job.validation_file))
        return found

    def _source(self, which: Which, file_id: str) -> _Source:
        with self._platform.database.read() as tx:
            file = files.get_file(tx, file_id, self._job.project_id)
        if file is None:
            code = f"invalid_{which}"
            gone = say("file_gone", file=which.removesuffix("_file"), id=file_id)
            raise JobRefused(
                JobError(code, f"The file {file_id} no longer exists.", which, (gone,))
            )
        return _Source(which, file, self._platform.blobs.path(file.sha256))

    def _validate(self, source: _Source, renderer: Renderer) -> CheckReport:
        limits = check_limits(self._platform, renderer, source.which, self._job.method)
        report = check_file(
            source.blob, limits, renderer, progress=self._progress, name=source.file.filename
        )
        self._keep_findings(source, report)
        _refuse(job_error(report, source.which))
        return report

    def _keep_findings(self, source: _Source, report: CheckReport) -> None:
        folder = self._paths.root / "findings"
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "file": source.file.id,
            "sha256": source.file.sha256,
            "rows_total": report.rows_total,
            "rows_usable": report.rows_usable,
            "blank_lines": report.blank_lines,
            "counts": report.counts,
            "findings": report.findings,
        }
        write_json(folder / f"{source.which}.json", content)

    def _survey(self, sources: list[_Source], reports: list[CheckReport]) -> None:
        """Says what the check warns of, in the rows as redaction left them."""
        looked = [
            Looked(source.which, source.blob, report)
            for source, report in zip(sources, reports, strict=True)
        ]
        found = survey(looked, self._job.method, self._paths.root, self._progress)
        said = [self._writer.warned(one.said(), one.data()) for one in found if one.said()]
        for one in found:
            write_json(self._paths.root / "findings" / f"{one.which}.warnings.json", one)
        with self._platform.database.write() as tx:
            events.append_events(tx, self._job.id, self._job.fence, said)

    def _scrub(self, source: _Source) -> _Source:
        """The same file without personal data; what was taken out is said, and recorded beside the
        findings by line, field and kind."""
        settings = self._platform.settings
        kinds = kinds_named(settings.redact.kinds)
        folder = settings.shards / source.file.sha256
        done = scrub(source.blob, source.file.sha256, folder, kinds, self._progress)
        shutil.copyfile(
            done.audit, self._paths.root / "findings" / f"{source.which}.redacted.jsonl"
        )
        write_json(self._paths.root / "findings" / f"{source.which}.redaction.json", done.report)
        said = self._writer.message(redacted(source.which, done.report))
        with self._platform.database.write() as tx:
            events.append_events(tx, self._job.id, self._job.fence, [said])
        return replace(source, blob=done.rows)

    def _moderate(self, source: _Source) -> frozenset[int]:
        """The lines that moderation leaves out. Raises JobRefused above the share that is set."""
        folder = self._paths.root / "findings"
        moderation = Moderation(
            self._platform, self._job, folder, self._progress, self._patience, self._lease.check
        )
        report = moderation.run(source.which, source.file.sha256, source.blob)
        if report is None:
            return frozenset()
        if report.refused:
            raise JobRefused(moderation.refusal(source.which, report))
        return frozenset(report.quarantined_lines)

    def _tokenise(
        self, source: _Source, report: CheckReport, renderer: Renderer, left_out: frozenset[int]
    ) -> DataSpec:
        limits = check_limits(self._platform, renderer, source.which, self._job.method)
        options = ShardOptions(
            skip_lines=array(report.bad_lines.typecode, sorted({*report.bad_lines, *left_out}))
            or None,
            max_row_tokens=limits.max_row_tokens,
            kind=report.kind,
        )
        shards = self._platform.settings.shards / source.file.sha256
        return build_shards(source.blob, renderer, shards, options, progress=self._progress)

    def _resolve(
        self, base: BaseModel, renderer: Renderer, data: list[DataSpec]
    ) -> Hyperparameters:
        resolution = Resolution(
            job=self._job,
            base=base,
            training=data[0],
            validation=data[1] if len(data) > 1 else None,
            end_tokens=renderer.end_tokens,
            context_tokens=renderer.context_tokens,
            template_sha256=renderer.template_sha256,
            rendered_at=renderer.moment,
            parent=self._parent(),
        )
        settings = self._platform.settings
        training = settings.training.model_copy(update={"precision": settings.precision})
        spec, hyperparameters = resolve_run(resolution, training)
        if spec.sharded and spec.method != "supervised":
            message = (
                f"All weights cannot learn by method {spec.method} here: "
                "AFINA_TRAINING__SHARD_FULL_WEIGHTS spreads them over processes, which supervised "
                "jobs alone can. Ask for another kind of tuning, or leave the setting out."
            )
            raise JobRefused(JobError("unsupported_parameter", message, "method"))
        self._hold_budget(spec.epochs, data[0].tokens)
        self._lease.check()
        write_spec(self._paths, spec)
        rate = rate_of(settings, base, spec)
        self._guess = lambda start: first_guess(rate, spec, start)
        return hyperparameters

    def _hold_budget(self, epochs: int, tokens_an_epoch: int) -> None:
        """Before anything is trained: what the whole job costs must fit into the hard limits
        beside other jobs, and is held from them."""
        try:
            hold_training(self._platform, self._job, epochs, tokens_an_epoch)
        except QuotaExceeded as error:
            raise JobRefused(JobError("exceeded_quota", error.one_line())) from None

    def _parent(self) -> ParentSpec | None:
        """The files of the tune that the job continues from, copied into the run's directory:
        then nobody's deletion can take them away."""
        sha256 = self._job.parent_manifest
        if sha256 is None:
            return None
        blobs = self._platform.blobs
        manifest = Manifest.from_bytes(blobs.read(sha256))
        folder = self._paths.root / "parent"
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in manifest.files.items():
            if not (folder / name).exists():
                partial = folder / f".{name}"
                shutil.copyfile(blobs.path(file), partial)
                partial.replace(folder / name)
        return ParentSpec(sha256, str(folder.absolute()), dict(manifest.files))

    def _leave(self, hyperparameters: Hyperparameters) -> None:
        said = self._writer.message(say("queued"))
        job, fence = self._job.id, self._job.fence
        with self._platform.database.write() as tx:
            events.append_events(tx, job, fence, [said])
            jobs.move_job(
                tx,
                job,
                fence,
                JobStatus.QUEUED,
                stage="queued",
                hyperparameters=hyperparameters,
                estimated_finish=self._guess(self._start(tx)),
            )
        self._note.forget()
        log.info("job.queued", job=job)

    def _start(self, tx: Tx) -> float:
        """When the job's turn comes: after those that are ahead of it, as far as they are known."""
        ahead = jobs.jobs_in(tx, (JobStatus.QUEUED, JobStatus.RUNNING))
        known = [job.estimated_finish for job in ahead if job.estimated_finish is not None]
        return max([self._platform.clock.now(), *known])

    def _stage(self, name: str) -> None:
        with self._platform.database.write() as tx:
            jobs.update_job(tx, self._job.id, self._job.fence, stage=name)
        self._at = name
        self._note.forget()

    def _progress(self, done: int, total: int) -> None:
        self._lease.check()
        self._note.note(self._at, done, total)


def _refuse(error: JobError | None) -> None:
    if error is not None:
        raise JobRefused(error)


def redacted(which: str, report: RedactionReport) -> Said:
    """What was taken out of a file, counted by kind."""
    file, n, rows = which.removesuffix("_file"), report.rows_changed, report.rows
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(report.places.items()))
    if not found:
        return say("redacted_none", file=file, n=n, rows=rows)
    return say("redacted", file=file, n=n, rows=rows, found=found)


def check_limits(
    platform: Platform, renderer: Renderer, which: Which, method: str = "supervised"
) -> CheckLimits:
    """What a job's file is held against: its method decides what rows must be, and ten rows are
    asked of training alone."""
    longest = min(renderer.context_tokens, platform.settings.training.max_row_tokens)
    return limits_of(method, which == "validation_file", longest)


def refusal_of(error: InvalidRequest) -> JobError:
    """A typed refusal of a stage as the error of its job."""
    code = error.code or "invalid_training_file"
    return JobError(code, error.one_line(), error.param)
