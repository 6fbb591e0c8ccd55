"""The gate's stage: puts its questions to base and tuned model, and writes down what came of it.

With policy `hold` it runs before the model is published; with `report` afterwards, in a lane of
its own, so that the name answers at once. What the base said is kept by the hash of base and
questions, and asked once. Nothing that a model said to a user's row is stored.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import structlog

from afina.data.shards import Shards
from afina.domain.codec import encode
from afina.domain.runs import BaseSpec, RunResult, RunSpec
from afina.domain.sayings import Said, say
from afina.errors import AfinaError, Unavailable
from afina.evaluation import gate
from afina.evaluation.asking import Answer, Round, ask
from afina.evaluation.questions import Ability, Probe, abilities, probes, suite_sha256
from afina.pipeline.patience import Patience
from afina.pipeline.run_files import write_json
from afina.service.moderation import Moderator, moderator_of
from afina.service.platform import Platform
from afina.serving.client import BlockingEngineClient, EngineClient
from afina.serving.protocol import Generate, Score
from afina.text.renderer import Renderer

LEAST_S: Final = 45.0
SHARE: Final = 0.2
"""Of the training's time, if that is more."""
ANSWER_TOKENS: Final = 40
RECALL_TOKENS: Final = 48
LEAST_RECALL_TOKENS: Final = 8
"""A shorter answer comes back by chance."""
PATIENCE: Final = 20.0
"""The suite is sized for the time above on a machine of its own. A busy one gets so many times as
long, then what is missing is not measured: asking late costs nobody anything, and a model that is
held because others used the machine was not proven to be bad."""
LEAST_PROBES: Final = 30
"""Fewer answers say nothing about safety."""
AT_ONCE: Final = 16
SCORES_AT_ONCE: Final = 8
ROWS: Final = {"default": 24, "full": 128}
_CANARY: Final = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])\S{12,}")
log = structlog.get_logger()


@dataclass(frozen=True)
class Candidate:
    """The tuned model that stands before the gate."""

    base: BaseSpec
    end_tokens: Sequence[int]
    manifest: str
    suite: str
    tag: str
    """Whose questions the engine is asked: the job's id."""
    train_seconds: float = 0.0
    training: Path | None = None
    """Its prepared rows; None once they are gone with their file."""
    validation: Path | None = None
    in_pairs: bool = False
    """Whether every second row is an answer that was not preferred."""

    @classmethod
    def of_run(cls, spec: RunSpec, result: RunResult, manifest: str, suite: str) -> Self:
        """What a run brought."""
        training, validation = (
            None if data is None or not Path(data.path).exists() else Path(data.path)
            for data in (spec.training, spec.validation)
        )
        return cls(
            spec.base,
            spec.end_tokens,
            manifest,
            suite,
            spec.job_id,
            train_seconds=result.train_seconds,
            training=training,
            validation=validation,
            in_pairs=spec.method == "dpo",
        )


@dataclass(frozen=True)
class GateRun:
    """One run of the gate. `check` raises when it is no longer wanted."""

    platform: Platform
    candidate: Candidate
    check: Callable[[], None]

    def run(self) -> gate.GateReport:
        """The report. Raises Unavailable where the engine stays away."""
        now = self.platform.clock.monotonic
        started = now()
        allowed = max(LEAST_S, SHARE * self.candidate.train_seconds)
        if self.candidate.suite == "full":
            allowed *= 8
        how = Round(AT_ONCE, started + PATIENCE * allowed, now, self.check)
        judge, unjudged = self._judge()
        asked = questions()
        base = self._base_answers([question.prompt for question in asked], how)
        tuned = self._answers([question.prompt for question in asked], how, tuned=True)
        parts = [
            *self._behaviour(base, tuned, judge, unjudged),
            self._memorisation(how),
            self._quality(how),
        ]
        unsafe = any(part.name == "safety" and not part.measured for part in parts)
        reasons = tuple(reason for part in parts for reason in part.reasons)
        return gate.GateReport(
            suite=self.candidate.suite,
            suite_sha256=suite_sha256(),
            verdict="failed" if reasons else "incomplete" if unsafe else "passed",
            reasons=reasons,
            parts=tuple(parts),
            seconds=round(now() - started, 2),
            limit_seconds=allowed,
            judge=judge.model if judge is not None else "",
            limits=encode(self._limits),
        )

    @functools.cached_property
    def _limits(self) -> gate.Limits:
        set_ = self.platform.settings.gate
        return gate.Limits(
            set_.max_loss_rise,
            set_.max_ability_loss,
            set_.max_harm_rise,
            set_.max_refusal_rise,
            set_.max_memorised,
        )

    @functools.cached_property
    def _renderer(self) -> Renderer:
        return Renderer.load(Path(self.candidate.base.path))

    @functools.cached_property
    def _patience(self) -> Patience:
        return Patience(self.platform.clock.monotonic, self.platform.settings.moderation.wait_s)

    def _judge(self) -> tuple[Moderator | None, Said]:
        """Who judges answers; where nobody does, why."""
        try:
            judge = moderator_of(self.platform.settings)
            self._patience.ask(lambda: judge.verdicts(["Hello"]), self.check)
        except Unavailable as error:
            log.info("gate.no_judge", reason=error.code)
            missing = error.code == "encoder_missing"
            return None, say("no_judge") if missing else say("words", text=error.message)
        return judge, say("no_judge")

    # -- what the models say -------------------------------------------------------------------

    def _behaviour(
        self,
        base: Sequence[str | None],
        tuned: Sequence[str | None],
        judge: Moderator | None,
        unjudged: Said,
    ) -> list[gate.Part]:
        both = [
            (question, a, b)
            for question, a, b in zip(questions(), base, tuned, strict=True)
            if a is not None and b is not None
        ]
        able = [(q, a, b) for q, a, b in both if isinstance(q, Ability)]
        probed = [(q, a, b) for q, a, b in both if isinstance(q, Probe)]
        if not able or len(probed) < LEAST_PROBES:
            why = say("no_time")
            return [gate.not_measured(name, why) for name in ("regression", "safety")]
        before, after = [a for _, a, _ in able], [b for _, _, b in able]
        parts = [gate.regression([q for q, _, _ in able], before, after, self._limits)]
        if judge is None:
            return [*parts, gate.not_measured("safety", unjudged)]
        said = ([a for _, a, _ in probed], [b for _, _, b in probed])

        def verdicts(texts: Sequence[str]) -> list[dict[str, float]]:
            found = self._patience.ask(lambda: judge.verdicts(texts, self.check), self.check)
            return [dict(v.categories) for v in found]

        asked = [q for q, _, _ in probed]
        safe = gate.safety(asked, (before, after), said, verdicts, self._limits)
        return [*parts, safe]

    def _base_answers(self, prompts: Sequence[str], how: Round) -> list[str | None]:
        base = self.candidate.base
        key = hashlib.sha256(f"{base.sha256} {suite_sha256()} {ANSWER_TOKENS}".encode()).hexdigest()
        path = self.platform.settings.data / "gate" / f"{key[:32]}.json"
        kept: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(path.read_text())
        missing = [prompt for prompt in prompts if prompt not in kept]
        if missing:
            answers = self._answers(missing, how, tuned=False)
            found = zip(missing, answers, strict=True)
            kept |= {prompt: answer for prompt, answer in found if answer is not None}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
        return [kept.get(prompt) for prompt in prompts]

    def _answers(self, prompts: Sequence[str], how: Round, *, tuned: bool) -> list[str | None]:
        rendered = [self._renderer.prompt([{"role": "user", "content": text}]) for text in prompts]
        found = self._generate(rendered, ANSWER_TOKENS, how, tuned=tuned)
        return [None if answer is None else answer.text for answer in found]

    def _generate(
        self, prompts: Sequence[Sequence[int]], most: int, how: Round, *, tuned: bool
    ) -> list[Answer | None]:
        candidate = self.candidate
        requests = [
            Generate(
                request_id=self.platform.ids.new("gate-"),
                base=candidate.base.id,
                adapter=candidate.manifest if tuned else None,
                prompt=list(prompt),
                max_tokens=most,
                seed=0,
                temperature=0.0,
                end_tokens=list(candidate.end_tokens),
                background=True,
                tag={"gate": candidate.tag},
            )
            for prompt in prompts
        ]
        return ask(EngineClient(self.platform.settings.engine_socket), requests, how)

    # -- rows of the user ----------------------------------------------------------------------

    def _quality(self, how: Round) -> gate.Part:
        source = self.candidate.validation or self.candidate.training
        if source is None:
            return gate.not_measured("quality", say("rows_gone"))
        rows = self._turns(source, self._context, LEAST_RECALL_TOKENS // 4)
        client = BlockingEngineClient(self.platform.settings.engine_socket)

        def losses(row: tuple[list[int], list[int]]) -> tuple[float, float] | None:
            if how.now() >= how.until:
                return None
            self.check()
            found = []
            for adapter in (None, self.candidate.manifest):
                asked = Score(
                    self.candidate.base.id, row[0], row[1], adapter, top=1, background=True
                )
                said = client.score(asked).logprobs
                found.append(-sum(said) / max(1, len(said)))
            return found[0], found[1]

        try:
            with ThreadPoolExecutor(SCORES_AT_ONCE) as pool:
                measured = [pair for pair in pool.map(losses, rows) if pair is not None]
        except Unavailable:
            raise
        except AfinaError as error:
            return gate.not_measured("quality", say("words", text=error.message))
        if not measured:
            return gate.not_measured("quality", say("no_rows"))
        base, tuned = [a for a, _ in measured], [b for _, b in measured]
        which = "validation" if self.candidate.validation is not None else "training"
        return gate.quality(base, tuned, which, self._limits)

    def _memorisation(self, how: Round) -> gate.Part:
        if self.candidate.training is None:
            return gate.not_measured("memorisation", say("rows_gone"))
        rows = self._turns(self.candidate.training, self._context, LEAST_RECALL_TOKENS)
        cut = [(prompt, wanted[:RECALL_TOKENS]) for prompt, wanted in rows]
        found = self._generate([prompt for prompt, _ in cut], RECALL_TOKENS, how, tuned=True)
        recalled = []
        for (_, wanted), answer in zip(cut, found, strict=True):
            if answer is None:
                continue
            text = self._renderer.tokenizer.decode(list(wanted))
            recalled.append(
                gate.Recalled(tuple(wanted), answer.ids, _CANARY.search(text) is not None)
            )
        if not recalled:
            return gate.not_measured("memorisation", say("no_long_answers"))
        return gate.memorisation(recalled, self._limits)

    @property
    def _context(self) -> int:
        return min(1024, self._renderer.context_tokens) - RECALL_TOKENS

    def _turns(self, path: Path, longest: int, least: int) -> list[tuple[list[int], list[int]]]:
        """Some rows by hash: the prompt of the last learned turn, and that turn. Of preferences
        the preferred answers: that the others become less likely is what was asked for."""
        rows = Shards.open(path)
        found: dict[str, tuple[list[int], list[int]]] = {}
        for index in range(0, len(rows), 2 if self.candidate.in_pairs else 1):
            ids, learned = rows.row(index)
            places = np.flatnonzero(learned)
            if not len(places):
                continue
            breaks = np.flatnonzero(np.diff(places) > 1)
            first = int(places[breaks[-1] + 1] if len(breaks) else places[0])
            wanted = ids[first : int(places[-1]) + 1]
            wanted = wanted[~np.isin(wanted, list(self.candidate.end_tokens))]
            if len(wanted) < max(1, least) or len(ids) > longest:
                continue
            digest = hashlib.sha256(ids.tobytes()).hexdigest()
            found.setdefault(digest, ([int(i) for i in ids[:first]], [int(i) for i in wanted]))
        most = ROWS[self.candidate.suite]
        return [found[digest] for digest in sorted(found)[:most]]


def questions() -> list[Ability | Probe]:
    """All that is asked, mixed by hash: what there is time for is of every kind."""
    every: list[Ability | Probe] = [*abilities(), *probes()]
    return sorted(every, key=lambda asked: hashlib.sha256(asked.id.encode()).digest())


def shown(report: gate.GateReport) -> dict[str, Any]:
    """The report as JSON; whether each part passed stands with it, and its sentences in words."""
    made: dict[str, Any] = encode(report)
    for part, value in zip(made["parts"], report.parts, strict=True):
        part |= {"passed": value.passed, "reasons": value.reasons, "note": value.note}
    return made
