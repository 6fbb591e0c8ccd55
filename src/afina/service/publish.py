"""The end of a job: tunes become blobs, then models, in one transaction; or the job ends without.

`store_tune` puts a checkpoint's files and manifest where the engine can read them (held by the
job, so that no sweep takes them), before anyone can see a model. `publish_models` makes models,
checkpoints, the ledger's entry, the results file, events and the job's success visible together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.events import JobEvent
from afina.domain.files import Purpose, StoredFile
from afina.domain.jobs import Job, JobCheckpoint, JobError, JobStatus, Wish
from afina.domain.manifests import Manifest, TuneKind
from afina.domain.models import ModelState, TunedModel, tuned_name
from afina.domain.sayings import Said, say
from afina.errors import IllegalTransition, Internal
from afina.service import aliases, gate, usage, webhooks
from afina.service.files import add_file
from afina.service.gate import GateOutcome
from afina.service.jobs import event
from afina.service.platform import Platform
from afina.store import checkpoints, events, gates, jobs, leases, models, references
from afina.store.blobs import StagedBlob
from afina.store.database import Tx
from afina.store.references import Holder


@dataclass(frozen=True)
class TuneFacts:
    """What a manifest says besides its files."""

    base_sha256: str
    template_sha256: str
    data_sha256: str
    settings: Mapping[str, str] = field(default_factory=dict)
    kind: TuneKind = "lora"


@dataclass(frozen=True)
class PublishedTune:
    """A stored tune: its step, the manifest's hash and the checkpoint's metrics."""

    step: int
    manifest: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Publication:
    """What a run brought. `tunes` are oldest first; the last one is the tuned model."""

    tunes: tuple[PublishedTune, ...]
    trained_tokens: int
    template_sha256: str
    rendered_at: int | None = None
    results_csv: bytes | None = None
    parity: Mapping[str, Any] | None = None
    row_losses_csv: bytes | None = None
    gate: GateOutcome = field(default_factory=lambda: GateOutcome("off", "default"))
    ending: tuple[Said, ...] = ()
    """What decided where the run ended and which epoch is the model: an event each."""


def store_tune(platform: Platform, job: Job, facts: TuneFacts, files: Mapping[str, Path]) -> str:
    """Stores a tune's files (by their published names) and manifest under the job's fence;
    returns the manifest's sha256. Doing it again changes nothing. Raises StaleFence,
    IllegalTransition."""
    staged: dict[str, StagedBlob] = {}
    try:
        for name, path in files.items():
            staged[name] = platform.blobs.stage_file(path)
        manifest = Manifest(
            kind=facts.kind,
            base_id=job.model,
            base_sha256=facts.base_sha256,
            files={name: blob.sha256 for name, blob in sorted(staged.items())},
            template_sha256=facts.template_sha256,
            data_sha256=facts.data_sha256,
            parent=job.parent_manifest,
            settings=dict(facts.settings),
        )
        staged[""] = platform.blobs.stage([manifest.to_bytes()])
        with platform.database.write() as tx:
            _require_running(tx, job)
            for blob in staged.values():
                holder = Holder("job", job.id)
                references.admit(tx, platform.blobs, blob, holder, platform.now())
    finally:
        for blob in staged.values():
            platform.blobs.discard(blob)
    return manifest.sha256


def publish_models(platform: Platform, job: Job, publication: Publication) -> Job:
    """Ends the job as succeeded with all that came out, in one transaction. `job` carries the
    fence of the worker. Raises StaleFence, IllegalTransition."""
    if not publication.tunes:
        raise Internal(f"The job {job.id} ended well but left no checkpoint.")
    staged = _stage_results(platform, publication)
    try:
        with platform.database.write() as tx:
            _require_running(tx, job)
            done = _Publishing(platform, tx, job, jobs.caller_of(tx, job.id))
            published = done.run(publication, staged)
    finally:
        for blob in staged.values():
            platform.blobs.discard(blob)
    return published


def pause_job(platform: Platform, job: Job, snapshot: Publication | None, tokens: int) -> Job:
    """Lets a job rest until its user resumes it. `snapshot` is the model as it stands, which
    answers to a name at once, but waits for the gate where the job asked it to hold; None where no
    step was done. The lease ends. Changes nothing where
    nobody wishes a pause any more. Raises StaleFence, IllegalTransition."""
    with platform.database.write() as tx:
        jobs.require_fence(tx, job.id, job.fence)
        standing = jobs.get_job(tx, job.id)
        if standing is None or standing.wish is not Wish.PAUSE:
            return job
        done = _Publishing(platform, tx, job, jobs.caller_of(tx, job.id))
        return done.rest(snapshot, tokens)


def stop_job(
    platform: Platform, job: Job, brought: Publication | None, tokens: int, error: JobError
) -> Job:
    """Ends a job as failed whose budget had no further epoch: the checkpoints of the epochs that
    were trained become models, and those epochs are billed. Raises StaleFence."""
    staged = {} if brought is None else _stage_results(platform, brought)
    try:
        with platform.database.write() as tx:
            _require_running(tx, job)
            done = _Publishing(platform, tx, job, jobs.caller_of(tx, job.id))
            return done.stop(brought, staged, tokens, error)
    finally:
        for blob in staged.values():
            platform.blobs.discard(blob)


def _stage_results(platform: Platform, publication: Publication) -> dict[str, StagedBlob]:
    """The result files by name, in the order in which the job lists them."""
    contents = {
        "step_metrics.csv": publication.results_csv,
        "row_losses.csv": publication.row_losses_csv,
    }
    return {name: platform.blobs.stage([raw]) for name, raw in contents.items() if raw is not None}


def fail_job(platform: Platform, job: Job, error: JobError) -> Job:
    """Ends the job as failed, with its error event. Nothing is billed."""
    said = failure(platform, job, error)
    with platform.database.write() as tx:
        events.append_events(tx, job.id, job.fence, [said])
        failed = jobs.move_job(
            tx, job.id, job.fence, JobStatus.FAILED, error=error, finished_at=platform.now()
        )
        held = references.drop_references(tx, Holder("job", job.id))
        webhooks.emit(platform, tx, job.project_id, "fine_tuning.job.failed", job.id)
    references.remove_blobs(platform.database, platform.blobs, held)
    return failed


def failure(platform: Platform, job: Job, error: JobError) -> JobEvent:
    """The event of a job that failed."""
    made = JobEvent(platform.ids.new(ids.EVENT), job.id, platform.now(), "error", error.message)
    return replace(made, said=error.said)


def end_cancelled(platform: Platform, job: Job, trained_tokens: int = 0) -> Job:
    """Ends the job as cancelled, as its user wished; the work done is billed."""
    said = event(platform, job.id, say("cancelled"))
    with platform.database.write() as tx:
        events.append_events(tx, job.id, job.fence, [said])
        cancelled = jobs.move_job(
            tx,
            job.id,
            job.fence,
            JobStatus.CANCELLED,
            trained_tokens=trained_tokens or None,
            finished_at=platform.now(),
        )
        if trained_tokens:
            usage.record_training(platform, tx, job, job.model, trained_tokens)
        held = references.drop_references(tx, Holder("job", job.id))
        webhooks.emit(platform, tx, job.project_id, "fine_tuning.job.cancelled", job.id)
    references.remove_blobs(platform.database, platform.blobs, held)
    return cancelled


def _require_running(tx: Tx, job: Job) -> None:
    status = jobs.require_fence(tx, job.id, job.fence)
    if status is not JobStatus.RUNNING:
        raise IllegalTransition(f"The job {job.id} is {status.value} and cannot bring a model.")


@dataclass(frozen=True)
class _Publishing:
    """One publication in its transaction."""

    platform: Platform
    tx: Tx
    job: Job
    caller: Caller

    def rest(self, snapshot: Publication | None, tokens: int) -> Job:
        """The job becomes paused."""
        paused = [say("paused")]
        for tune in snapshot.tunes if snapshot is not None else ():
            name = self._add_model(tune, snapshot, step=tune.step)  # type: ignore[arg-type]
            paused = [say("paused_at", step=tune.step, id=name)]
        if snapshot is not None and snapshot.gate.state is ModelState.HELD:
            paused.append(say("waits_for_gate"))
        said = [event(self.platform, self.job.id, *paused)]
        events.append_events(self.tx, self.job.id, self.job.fence, said)
        jobs.move_job(
            self.tx,
            self.job.id,
            self.job.fence,
            JobStatus.PAUSED,
            stage="paused",
            trained_tokens=tokens or None,
            estimated_finish=None,
        )
        jobs.wish_for(self.tx, self.job.id, None)
        leases.release(self.tx, self.job.id, self.job.fence)
        rested = jobs.get_job(self.tx, self.job.id)
        assert rested is not None
        return rested

    def run(self, publication: Publication, results: Mapping[str, StagedBlob]) -> Job:
        *earlier, final = publication.tunes
        said = [event(self.platform, self.job.id, one) for one in publication.ending]
        self._settle(publication)
        for tune in earlier:
            name = self._add_model(tune, publication, step=tune.step)
            kept = say("checkpoint", step=tune.step, id=name)
            said.append(event(self.platform, self.job.id, kept))
        name = self._add_model(final, publication, step=None)
        published = models.get_model(self.tx, name)
        if published is not None and published.state is ModelState.RELEASED:
            aliases.follow_release(self.platform, self.tx, self.caller, published)
        said.append(event(self.platform, self.job.id, say("model", id=name)))
        said += gate.begin(self.platform, self.tx, self.job, name, publication.gate)
        said.append(event(self.platform, self.job.id, say("done")))
        files = tuple(self._add_results(name, staged) for name, staged in results.items())
        tokens = publication.trained_tokens
        usage.record_training(self.platform, self.tx, self.job, name, tokens)
        events.append_events(self.tx, self.job.id, self.job.fence, said)
        references.drop_references(self.tx, Holder("job", self.job.id))
        told = "fine_tuning.job.succeeded"
        webhooks.emit(self.platform, self.tx, self.job.project_id, told, self.job.id)
        return jobs.move_job(
            self.tx,
            self.job.id,
            self.job.fence,
            JobStatus.SUCCEEDED,
            stage="published",
            fine_tuned_model=name,
            trained_tokens=tokens,
            result_files=files,
            finished_at=self.platform.now(),
            estimated_finish=None,
        )

    def stop(
        self,
        brought: Publication | None,
        results: Mapping[str, StagedBlob],
        tokens: int,
        error: JobError,
    ) -> Job:
        """The job becomes failed; what it learned answers to the names of checkpoints."""
        said: list[JobEvent] = []
        name = self.job.model
        if brought is not None:
            self._settle(brought)
            for tune in brought.tunes:
                name = self._add_model(tune, brought, step=tune.step)
                kept = say("checkpoint", step=tune.step, id=name)
                said.append(event(self.platform, self.job.id, kept))
            said += gate.begin(self.platform, self.tx, self.job, name, brought.gate)
        said.append(failure(self.platform, self.job, error))
        files = tuple(self._add_results(name, staged) for name, staged in results.items())
        if tokens:
            usage.record_training(self.platform, self.tx, self.job, name, tokens)
        events.append_events(self.tx, self.job.id, self.job.fence, said)
        references.drop_references(self.tx, Holder("job", self.job.id))
        told = "fine_tuning.job.failed"
        webhooks.emit(self.platform, self.tx, self.job.project_id, told, self.job.id)
        return jobs.move_job(
            self.tx,
            self.job.id,
            self.job.fence,
            JobStatus.FAILED,
            error=error,
            trained_tokens=tokens or None,
            result_files=files,
            finished_at=self.platform.now(),
        )

    def _settle(self, publication: Publication) -> None:
        """What a pause left waited for this gate too."""
        if publication.gate.policy == "hold":
            gates.set_states(self.tx, self.job.id, publication.gate.state)

    def _add_model(self, tune: PublishedTune, publication: Publication, step: int | None) -> str:
        """The name that the tune answers to: a new one, or that which a pause at its step gave."""
        standing = checkpoints.checkpoint_at(self.tx, self.job.id, tune.step)
        if standing is not None and step is not None:
            known = models.get_model(self.tx, standing.model)
            if known is not None and known.manifest == tune.manifest:
                return known.name
        name = self._free_name(step)
        for sha256 in self._parts(tune.manifest):
            references.add_reference(self.tx, sha256, Holder("model", name))
        now = self.platform.now()
        model = TunedModel(
            name=name,
            project_id=self.job.project_id,
            base_id=self.job.model,
            manifest=tune.manifest,
            created_at=now,
            job_id=self.job.id,
            step=step,
            state=publication.gate.state,
            parity=encode(publication.parity) if tune is publication.tunes[-1] else None,
            template_sha256=publication.template_sha256,
            rendered_at=publication.rendered_at,
        )
        models.insert_model(self.tx, model, self.caller, self.platform.clock.now())
        if standing is not None:
            checkpoints.rename_checkpoint(self.tx, standing.id, name)
            return name
        checkpoint = JobCheckpoint(
            id=self.platform.ids.new(ids.CHECKPOINT),
            job_id=self.job.id,
            created_at=now,
            model=name,
            step=tune.step,
            metrics=dict(tune.metrics),
        )
        checkpoints.insert_checkpoint(self.tx, checkpoint)
        return name

    def _parts(self, manifest: str) -> Sequence[str]:
        """The manifest's own blob and those of its files."""
        files = Manifest.from_bytes(self.platform.blobs.read(manifest)).files
        return [manifest, *sorted(set(files.values()))]

    def _free_name(self, step: int | None) -> str:
        slug = self.platform.settings.organization
        while True:
            tail = self.platform.ids.model_suffix()
            name = tuned_name(self.job.model, slug, self.job.suffix, tail, step)
            if not models.name_is_taken(self.tx, name):
                return name

    def _add_results(self, filename: str, staged: StagedBlob) -> str:
        file = StoredFile(
            id=self.platform.ids.new(ids.FILE),
            project_id=self.job.project_id,
            filename=filename,
            purpose=Purpose.FINE_TUNE_RESULTS,
            bytes=staged.size_bytes,
            sha256=staged.sha256,
            created_at=self.platform.now(),
        )
        add_file(self.platform, self.tx, self.caller, file, staged)
        return file.id
