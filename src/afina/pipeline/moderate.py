"""The stage that moderates a job's files, and what it does about what it finds.

The report is stored by the hash of file, model and policy, so a second job on the same file asks
nothing. Above the share of flagged rows that the settings allow, the job fails with
`invalid_training_file`, and the report stands among the project's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from afina.data.moderation.report import VERSION, ModerationReport, Rules, moderate_file
from afina.domain import ids
from afina.domain.codec import decode, encode
from afina.domain.events import JobEvent
from afina.domain.files import Purpose, StoredFile
from afina.domain.ids import EVENT
from afina.domain.jobs import Job, JobError
from afina.domain.sayings import Said, say, text_of
from afina.errors import AfinaError, EngineFailed, Overloaded, Unavailable
from afina.pipeline.patience import Patience
from afina.pipeline.run_files import write_json
from afina.service.files import add_file
from afina.service.moderation import Moderator, moderator_of
from afina.service.platform import Platform
from afina.store import events, jobs

log = structlog.get_logger()
_FIRST: Final = 10
"""Lines that a sentence names."""
_MOST_TOLD: Final = 100
"""Messages that an event names by line, place, category and score."""


@dataclass(frozen=True)
class Moderation:
    """Moderates the files of one job."""

    platform: Platform
    job: Job
    folder: Path
    """Where the run keeps its findings."""
    progress: Callable[[int, int], None]
    patience: Patience
    """For an engine that is about to come; the files of a job share it."""
    check: Callable[[], None] = lambda: None
    """Raises when the job is no longer wanted."""

    def run(self, which: str, sha256: str, blob: Path) -> ModerationReport | None:
        """The report on a file, told as events and kept beside the findings; None where there is
        no moderation. `refused` in it means that the job must fail."""
        settings = self.platform.settings.moderation
        if settings.backend == "off":
            return None
        try:
            moderator = moderator_of(self.platform.settings)
            report = self._report(which, moderator, sha256, blob)
        except (Unavailable, EngineFailed, Overloaded) as error:
            self._must_not_pass(error)
            why = say("words", text=error.message)
            if error.code == "encoder_missing":
                why = say("no_moderator")
            self._tell([self._event((say("unmoderated", file=which.removesuffix("_file")), why))])
            return None
        write_json(self.folder / f"{which}.moderation.json", report)
        self._tell(self._said(which, report))
        return report

    def refusal(self, which: str, report: ModerationReport) -> JobError:
        """Why the job fails; the report becomes a file of the project."""
        file_id = self._keep(which, report)
        share = report.counted_rows / max(1, report.rows)
        most = self.platform.settings.moderation.max_flagged_share
        return JobError(
            f"invalid_{which}",
            f"The job failed due to an invalid {_words(which)}. {report.counted_rows} of "
            f"{report.rows} rows ({share:.2%}) are flagged by moderation, more than the "
            f"{most:.2%} that moderation.max_flagged_share allows; the first are in lines "
            f"{report.first_lines(_FIRST, counted=True)}. Drop or mend them: `afina data moderate "
            f"FILE --clean OUT` writes the other rows. The report, with message, category and "
            f"score of each, is the file {file_id}.",
            which,
            (self._flagged(which, report, file_id),),
        )

    def _flagged(self, which: str, report: ModerationReport, file_id: str) -> Said:
        return say(
            "flagged",
            file=which.removesuffix("_file"),
            n=report.counted_rows,
            rows=report.rows,
            most=round(100 * self.platform.settings.moderation.max_flagged_share, 1),
            lines=report.first_lines(_FIRST, counted=True),
            id=file_id,
        )

    def _must_not_pass(self, error: Unavailable | EngineFailed | Overloaded) -> None:
        """Where rows may be blocked, silence is not consent: the job waits for the moderator."""
        settings = self.platform.settings.moderation
        policies = {settings.policy, *settings.categories.values()}
        if policies != {"warn"}:
            raise Unavailable(
                f"The job waits for moderation: {error.message}", remedy=error.remedy
            ) from error

    def _report(
        self, which: str, moderator: Moderator, sha256: str, blob: Path
    ) -> ModerationReport:
        settings = self.platform.settings.moderation
        rules = Rules(settings.policy, settings.categories, settings.max_flagged_share)
        parts = (VERSION, moderator.model, encode(rules), dict(settings.thresholds), blob.name)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
        path = self.platform.settings.shards / sha256 / f"moderation-{key}.json"
        try:
            return decode(ModerationReport, json.loads(path.read_text()))
        except (OSError, ValueError):
            pass

        def waits(error: AfinaError) -> None:
            said = say("waits_for_moderator", file=which.removesuffix("_file"))
            self._tell_once(self._event((said, say("words", text=error.one_line())), worried=False))

        def judge(texts: Sequence[str]) -> list[Mapping[str, float]]:
            found = self.patience.ask(
                lambda: moderator.verdicts(texts, self.check), self.check, waits
            )
            return [verdict.categories for verdict in found]

        report = moderate_file(blob, judge, moderator.model, rules, self.progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)
        return report

    def _said(self, which: str, report: ModerationReport) -> list[JobEvent]:
        found = ", ".join(f"{count} {name}" for name, count in report.categories.items())
        file, flagged = which.removesuffix("_file"), report.flagged_rows
        said = [say("moderated", file=file, n=flagged, rows=report.rows)]
        if found:
            said = [
                say("moderated_found", file=file, n=flagged, rows=report.rows, found=found),
                say("flagged_lines", n=flagged, lines=report.first_lines(_FIRST)),
            ]
        if report.left_out:
            said.append(say("left_out", n=report.left_out))
        if flagged > report.left_out and not report.refused:
            stay = "flagged_stay" if which == "training_file" else "flagged_stay_valid"
            said.append(say(stay, n=flagged - report.left_out, setting=self._lenient()))
        data = {
            "file": which,
            "model": report.model,
            "blocked": report.refused,
            "rows": report.rows,
            "flagged_rows": report.flagged_rows,
            "left_out": report.left_out,
            "categories": dict(report.categories),
            "lines": sorted({message.line for message in report.messages})[:_MOST_TOLD],
            "messages": [encode(message) for message in report.messages[:_MOST_TOLD]],
        }
        return [self._event(said, data, worried=bool(report.flagged_rows))]

    def _lenient(self) -> str:
        """The setting that lets flagged rows stay."""
        of_all = self.platform.settings.moderation.policy
        return "moderation.categories" if of_all == "quarantine" else "moderation.policy"

    def _event(
        self, said: Sequence[Said], data: Mapping[str, Any] | None = None, *, worried: bool = True
    ) -> JobEvent:
        return JobEvent(
            id=self.platform.ids.new(EVENT),
            job_id=self.job.id,
            created_at=self.platform.now(),
            level="warn" if worried else "info",
            message=text_of(said),
            type="message" if data is None else "moderation_checks",
            data=data or {},
            said=tuple(said),
        )

    def _tell(self, said: Sequence[JobEvent]) -> None:
        with self.platform.database.write() as tx:
            events.append_events(tx, self.job.id, self.job.fence, said)

    def _tell_once(self, event: JobEvent) -> None:
        """A job that waits all night begins to wait many times."""
        with self.platform.database.write() as tx:
            known = {old.message for old in events.all_events(tx, self.job.id)}
            if event.message not in known:
                events.append_events(tx, self.job.id, self.job.fence, [event])

    def _keep(self, which: str, report: ModerationReport) -> str:
        raw = (json.dumps(encode(report), indent=1) + "\n").encode()
        staged = self.platform.blobs.stage([raw])
        try:
            with self.platform.database.write() as tx:
                file = StoredFile(
                    id=self.platform.ids.new(ids.FILE),
                    project_id=self.job.project_id,
                    filename=f"{which}.moderation.json",
                    purpose=Purpose.FINE_TUNE_RESULTS,
                    bytes=staged.size_bytes,
                    sha256=staged.sha256,
                    created_at=self.platform.now(),
                )
                add_file(self.platform, tx, jobs.caller_of(tx, self.job.id), file, staged)
        finally:
            self.platform.blobs.discard(staged)
        return file.id


def _words(which: str) -> str:
    return which.replace("_", " ")
