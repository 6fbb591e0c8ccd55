"""Moderation as a service: shapes, memory, settings; embeddings' refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from openai.types import ModerationCreateResponse

from afina.data.moderation.categories import CATEGORIES
from afina.data.moderation.pieces import WINDOW_CHARACTERS, windows_of
from afina.domain.accounts import Caller
from afina.domain.ledger import EntryKind
from afina.errors import (
    InvalidRequest,
    ModelNotFound,
    Unavailable,
    UnknownField,
    UnsupportedField,
)
from afina.inside_settings import ModerationSettings
from afina.service.embeddings import EmbeddingRequest, EmbeddingService
from afina.service.moderation import Moderator, moderator_of
from afina.service.moderation_request import ModerationRequest, ModerationService
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.service.usage import list_ledger
from afina.settings import Settings


class Judge:
    """Flags what says `bad` as hate; counts what it was asked."""

    name = "a judge"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        self.asked += texts
        return [
            ([0.9 if name == "hate" and "bad" in t else 0.1 for name in CATEGORIES], len(t))
            for t in texts
        ]


Answer = Callable[[dict[str, object]], dict[str, object]]


@pytest.fixture
def answer(platform: Platform, caller: Caller) -> Answer:
    service = ModerationService(platform, Moderator(Judge(), {}))

    def answered(body: dict[str, object], request_id: str = "req_1") -> dict[str, object]:
        return service.answer(caller, parse(ModerationRequest, body), request_id)

    return answered


def test_the_official_client_reads_the_answer(answer: Answer) -> None:
    found = ModerationCreateResponse.model_validate(answer({"input": ["bad", "good"]}))
    assert found.id.startswith("modr-")
    assert [result.flagged for result in found.results] == [True, False]
    assert found.results[0].categories.hate
    assert not found.results[0].categories.violence_graphic


def test_parts_of_one_input_have_one_result_and_images_are_refused(answer: Answer) -> None:
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "bad"}]
    found = ModerationCreateResponse.model_validate(answer({"input": parts}))
    assert [result.flagged for result in found.results] == [True]
    with pytest.raises(UnsupportedField) as refused:
        answer({"input": [{"type": "image_url", "image_url": {"url": "https://a.example/b"}}]})
    assert refused.value.param == "input[0]"


def test_what_any_part_is_flagged_for_the_whole_input_is(
    platform: Platform, caller: Caller
) -> None:
    scores = {"calm": {"illicit": 0.85}, "blow": {"violence": 0.6}, "slur": {"hate": 0.7}}

    class Several(Judge):
        def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
            return [([scores[text].get(name, 0.0) for name in CATEGORIES], 1) for text in texts]

    service = ModerationService(platform, Moderator(Several(), {"illicit": 0.9}))
    parts = [{"type": "text", "text": text} for text in scores]
    found = service.answer(caller, parse(ModerationRequest, {"input": parts}), "req_1")
    (result,) = found["results"]
    assert {name for name, is_so in result["categories"].items() if is_so} == {"violence", "hate"}
    assert result["category_scores"]["illicit"] == 0.85


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": 3}, {"input": "a", "model": "gpt"}])
def test_a_wrong_request_is_refused_by_its_field(answer: Answer, body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        answer(body)
    assert refused.value.param in {"input", "model"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", 5], "'input[1]': expected a string, but got an integer"),
        ([None], "'input[0]': expected a string, but got null"),
        ({"type": "text"}, "'input': expected a string, but got an object"),
    ],
)
def test_what_is_wrong_in_a_list_of_inputs_is_named_by_its_place(
    answer: Answer, given: object, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        answer({"input": given})
    assert said in refused.value.message


def test_a_request_is_in_the_ledger_once_with_all_of_its_tokens_and_costs_nothing(
    platform: Platform, caller: Caller
) -> None:
    service = ModerationService(platform, Moderator(Judge(), {}))
    asked = parse(ModerationRequest, {"input": ["bad", "good"]})
    for request_id in ("req_a", "req_a", "req_b"):  # the second of each text is remembered
        service.answer(caller, asked, request_id)
    kept = list_ledger(platform, caller).data
    assert [(one.request_id, one.kind, one.model) for one in kept] == [
        ("req_b", EntryKind.MODERATION, "a judge"),
        ("req_a", EntryKind.MODERATION, "a judge"),
    ]
    assert {(one.prompt_tokens, one.amount_pico) for one in kept} == {(7, 0)}


def test_a_text_that_was_judged_is_not_judged_again() -> None:
    judge = Judge()
    moderator = Moderator(judge, {})
    first = moderator.verdicts(["a", "b", "a"])
    assert moderator.verdicts(["b", "a"]) == [first[1], first[0]]
    assert sorted(judge.asked) == ["a", "b"]


def test_thresholds_are_the_settings_own() -> None:
    assert Moderator(Judge(), {"hate": 0.95}).verdicts(["bad"])[0].is_flagged is False


def test_moderation_that_is_off_says_so(tmp_path: Path) -> None:
    off = Settings(data=tmp_path, moderation=ModerationSettings(backend="off"))
    with pytest.raises(Unavailable, match="off"):
        moderator_of(off)


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        ({"input": "a", "dimensions": 64}, UnsupportedField, "dimensions"),
        ({"input": "a", "model": "text-embedding-3-small"}, ModelNotFound, "model"),
        ({"input": []}, InvalidRequest, "input"),
        ({"input": [""]}, InvalidRequest, "input"),
        ({"input": ["a", 1]}, InvalidRequest, "input"),
        ({"input": [[1], "a"]}, InvalidRequest, "input"),
        ({"input": [True]}, InvalidRequest, "input"),
        ({"input": "a", "metadata": {}}, UnknownField, "metadata"),
    ],
)
def test_embeddings_refuse_what_they_do_not_do(
    platform: Platform,
    caller: Caller,
    body: dict[str, object],
    error: type[InvalidRequest],
    param: str,
) -> None:
    def ask() -> None:
        asked = parse(EmbeddingRequest, {"model": "multilingual-e5-small"} | body)
        EmbeddingService(platform).answer(caller, asked, "req_1")

    with pytest.raises(error) as refused:
        ask()
    assert refused.value.param == param


@pytest.mark.parametrize(
    "asked",
    [
        {"input": "a", "user": "someone"},
        {"input": ["a", "b"], "encoding_format": None, "dimensions": None},
        {"input": [[1, 2], [3]]},
        {"input": [1, 2]},
    ],
)
def test_what_clients_send_with_embeddings_is_taken(asked: dict[str, object]) -> None:
    taken = parse(EmbeddingRequest, {"model": "multilingual-e5-small"} | asked)
    assert taken.input == asked["input"]


def test_a_long_text_is_judged_in_windows_and_all_of_it_counts() -> None:
    judge = Judge()
    sentence = "This is a sentence of forty characters. "
    text = sentence * 1200 + "That is bad. " + sentence * 1200
    (verdict,) = Moderator(judge, {}).verdicts([text])
    assert verdict.categories == {"hate": 0.9}
    assert len(judge.asked) == len(set(windows_of(text)))
    assert max(map(len, judge.asked)) <= WINDOW_CHARACTERS
    assert verdict.tokens == len(text) - 2 * (len(windows_of(text)) - 1)


def test_what_was_judged_before_a_break_is_not_judged_again() -> None:
    class Breaks(Judge):
        left = 2

        def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
            self.left -= 1
            if self.left < 0:
                raise Unavailable("The engine is away.")
            return super().judge(texts)

    judge, text = Breaks(), "".join(f"This is sentence number {n}. " for n in range(3000))
    moderator = Moderator(judge, {})
    with pytest.raises(Unavailable):
        moderator.verdicts([text])
    judge.left = 99
    moderator.verdicts([text])
    assert judge.asked == windows_of(text)


def test_a_judge_is_not_asked_on_where_no_more_is_wanted() -> None:
    judge, text = Judge(), "".join(f"This is sentence number {n}. " for n in range(3000))
    calls = iter([None, Unavailable("It is over.")])

    def check() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(Unavailable, match="over"):
        Moderator(judge, {}).verdicts([text], check)
    assert len(judge.asked) == 1


def test_half_of_a_surrogate_pair_is_judged_as_what_can_be_sent() -> None:
    judge = Judge()
    moderator = Moderator(judge, {})
    assert moderator.verdicts(["bad \ud83d"])[0].is_flagged
    assert judge.asked == ["bad ?"]
