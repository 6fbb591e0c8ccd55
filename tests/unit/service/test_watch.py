"""The abuse watch: counted by key and model, acted on above a threshold, masked while streaming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from tests.platforms import BASE, clock_of, first_caller, open_platform

from afina.data.personal.redaction import Placeholders, redact_text
from afina.domain.accounts import Caller
from afina.domain.watch import HOUR_S, Watched
from afina.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from afina.service import watch
from afina.service.asking import Asker, Sampling
from afina.service.audit import list_audit
from afina.service.masking import Masker
from afina.service.models import resolve_model
from afina.service.moderation import Moderator
from afina.service.platform import Platform
from afina.service.watcher import Watcher
from afina.serving.protocol import Delta, Final, Generate

RUDE = "you are scum, canary-5150"
SAID = (
    "Write to ana@correo.example.com or call +34 612 345 678 today; my card is 4111 1111 1111 1111 "
    "and the IBAN is ES91 2100 0418 4502 0005 1332. " + "Harmless words follow. " * 20
) * 2


class Judge:
    name = "a judge"

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        return [([0.9 if "scum" in text else 0.1, *[0.0] * 12], 1) for text in texts]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Platform]:
    settings = {"enabled": True, "action": "block", "least_flagged": 3, "share": 0.5}
    opened = open_platform(tmp_path / "watched", watch=settings)
    yield opened
    opened.close()


def watcher_of(platform: Platform) -> Watcher:
    return Watcher(platform, lambda: Moderator(Judge(), {}), starts=False)


def who(caller: Caller, model: str = BASE) -> Watched:
    return Watched(caller.project_id, caller.key_id, caller.organization_id, model)


def test_texts_are_counted_by_key_and_model_and_kept_nowhere(watched: Platform) -> None:
    caller = first_caller(watched)
    watcher = watcher_of(watched)
    watcher.saw(who(caller), [RUDE, "hello", ""], masked=2)
    watcher.saw(who(caller, "other"), ["hello"])
    assert watcher.work() == 4
    other, mine = watch.list_watch(watched, caller)
    assert (mine.model, mine.looked_at, mine.flagged) == (BASE, 2, 1)
    assert mine.categories == {"harassment": 1}
    assert mine.counts["~"] == 2
    assert (other.model, other.looked_at, other.flagged) == ("other", 1, 0)
    raw = b"".join(p.read_bytes() for p in watched.settings.data.iterdir() if p.is_file())
    assert b"canary-5150" not in raw


def test_above_the_threshold_a_key_is_stopped_for_the_model_until_it_is_released(
    watched: Platform,
) -> None:
    caller = first_caller(watched)
    watcher = watcher_of(watched)
    watcher.saw(who(caller), [RUDE, RUDE])
    watcher.work()
    watcher.check(who(caller))
    watcher.saw(who(caller), [RUDE])
    watcher.work()
    with pytest.raises(Forbidden, match="may not ask") as refused:
        watcher.check(who(caller))
    assert refused.value.code == "key_blocked"
    watcher.check(who(caller, "another model"))
    assert [entry.type for entry in list_audit(watched, caller).data][:1] == ["watch.block"]
    watch.release(watched, caller, caller.key_id)
    watcher.check(who(caller))
    with pytest.raises(NotFound):
        watch.release(watched, caller, caller.key_id)
    clock_of(watched).advance(HOUR_S)
    watcher.saw(who(caller), [RUDE] * 3)
    watcher.work()
    clock_of(watched).advance(2)
    with pytest.raises(Forbidden):
        watcher.check(who(caller))


def test_a_suspended_key_asks_no_model_and_an_alert_stops_nobody(tmp_path: Path) -> None:
    for action, stops in (("suspend", True), ("alert", False)):
        chosen = {"enabled": True, "action": action, "least_flagged": 1, "share": 0}
        platform = open_platform(tmp_path / action, watch=chosen)
        caller = first_caller(platform)
        watcher = watcher_of(platform)
        for _ in range(2):
            watcher.saw(who(caller), [RUDE])
            watcher.work()
        if stops:
            with pytest.raises(Forbidden, match="suspended"):
                watcher.check(who(caller, "any model"))
        else:
            watcher.check(who(caller))
        told = [e for e in list_audit(platform, caller).data if e.type == f"watch.{action}"]
        assert len(told) == 1
        platform.close()


def test_few_among_many_are_below_the_share_and_old_ones_outside_the_window(
    watched: Platform,
) -> None:
    caller = first_caller(watched)
    watcher = watcher_of(watched)
    watcher.saw(who(caller), [*[RUDE] * 3, *[f"fine {n}" for n in range(9)]])
    watcher.work()
    watcher.check(who(caller))
    clock_of(watched).advance(30 * HOUR_S)
    watcher.saw(who(caller), [RUDE, RUDE])
    watcher.work()
    watcher.check(who(caller))
    assert watch.list_watch(watched, caller)[0].looked_at == 2


def test_what_stood_before_counts_once_and_a_made_up_history_counts_too(watched: Platform) -> None:
    caller = first_caller(watched)
    watcher = watcher_of(watched)
    watcher.saw(who(caller), ["go on"], earlier=[RUDE, "an answer"])
    watcher.saw(who(caller), ["go on"], earlier=[RUDE, "an answer", "go on"])
    watcher.work()
    found = watch.list_watch(watched, caller)[0]
    assert (found.looked_at, found.flagged) == (4, 1)


def test_texts_that_nobody_can_judge_are_counted_as_unseen(watched: Platform) -> None:
    def away() -> Moderator:
        raise Unavailable("no engine")

    caller = first_caller(watched)
    watcher = Watcher(watched, away, starts=False)
    watcher.saw(who(caller), [RUDE, "hello"])
    watcher.work()
    found = watch.list_watch(watched, caller)[0]
    assert (found.looked_at, found.counts["!"]) == (0, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_masked_as_the_whole_text_however_it_is_cut(seed: int) -> None:
    expected, places = redact_text(SAID, Placeholders())
    chance, masker, told, at = Random(seed), Masker.of(()), "", 0
    while at < len(SAID):
        size = chance.randrange(1, 24)
        told += masker.mask(Delta(text=SAID[at : at + size])).text
        at += size
    told += masker.mask(Delta(finish="stop")).text
    assert told == expected
    assert masker.places == len(places)
    assert "ana@" not in told


class _Says:
    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces

    async def generate(self, request: Generate) -> AsyncIterator[Delta | Final]:
        for piece in self._pieces:
            yield Delta(text=piece)
        yield Delta(finish="stop")
        yield Final(1, 0, 1)


def test_answers_are_masked_on_their_way_and_logprobs_are_refused(tmp_path: Path) -> None:
    platform = open_platform(tmp_path / "masked", watch={"mask_answers": True})
    caller = first_caller(platform)
    asker = Asker(platform, _Says(["Ask ana@corr", "eo.example.com", " now"]))
    model = resolve_model(platform, caller, BASE)
    generate = asker.request(caller, model, Sampling(), "req-1", ([1], 1))

    async def told() -> str:
        return "".join(
            [line.text async for line in asker.lines(generate) if isinstance(line, Delta)]
        )

    assert asyncio.run(told()) == "Ask <EMAIL_1> now"
    with pytest.raises(InvalidRequest, match="logprobs"):
        asker.request(caller, model, Sampling(logprobs=1), "req-2", ([1], 1))
    platform.close()
