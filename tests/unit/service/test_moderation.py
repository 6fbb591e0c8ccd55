"""Moderation as a service: shapes, memory, settings; embeddings' refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from openai.types import ModerationCreateResponse

from afina.data.moderation.categories import CATEGORIES
from afina.domain.accounts import Caller
from afina.domain.ids import Ids
from afina.errors import (
    BadSettings,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
    UnknownField,
    UnsupportedField,
)
from afina.service.embeddings import EmbeddingRequest, EmbeddingService
from afina.service.moderation import Moderator, moderator_of
from afina.service.moderation_request import ModerationRequest, ModerationService
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.settings import ModerationSettings, Settings


class Judge:
    """Flags what says `bad` as hate; counts what it was asked."""

    name = "a judge"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def scores(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [
            [0.9 if name == "hate" and "bad" in t else 0.1 for name in CATEGORIES] for t in texts
        ]


def answer(body: dict[str, object]) -> dict[str, object]:
    service = ModerationService(Moderator(Judge(), {}), Ids(1))
    return service.answer(parse(ModerationRequest, body))


def test_the_official_client_reads_the_answer() -> None:
    found = ModerationCreateResponse.model_validate(answer({"input": ["bad", "good"]}))
    assert [result.flagged for result in found.results] == [True, False]
    assert found.results[0].categories.hate
    assert not found.results[0].categories.violence_graphic


def test_parts_of_one_input_have_one_result_and_images_are_refused() -> None:
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "bad"}]
    found = ModerationCreateResponse.model_validate(answer({"input": parts}))
    assert [result.flagged for result in found.results] == [True]
    with pytest.raises(UnsupportedField) as refused:
        answer({"input": [{"type": "image_url", "image_url": {"url": "https://a.example/b"}}]})
    assert refused.value.param == "input[0]"


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": 3}, {"input": "a", "model": "gpt"}])
def test_a_wrong_request_is_refused_by_its_field(body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        answer(body)
    assert refused.value.param in {"input", "model"}


def test_a_text_that_was_judged_is_not_judged_again() -> None:
    judge = Judge()
    moderator = Moderator(judge, {})
    first = moderator.verdicts(["a", "b", "a"])
    assert moderator.verdicts(["b", "a"]) == [first[1], first[0]]
    assert sorted(judge.asked) == ["a", "b"]


def test_thresholds_are_the_settings_own() -> None:
    assert Moderator(Judge(), {"hate": 0.95}).verdicts(["bad"])[0].is_flagged is False


def test_moderation_that_is_off_or_names_no_category_says_so(tmp_path: Path) -> None:
    off = Settings(data=tmp_path, moderation=ModerationSettings(backend="off"))
    with pytest.raises(Unavailable, match="off"):
        moderator_of(off)
    wrong = Settings(data=tmp_path, moderation=ModerationSettings(thresholds={"rudeness": 0.5}))
    with pytest.raises(BadSettings, match="rudeness"):
        moderator_of(wrong)


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        ({"input": "a", "dimensions": 64}, UnsupportedField, "dimensions"),
        ({"input": "a", "model": "text-embedding-3-small"}, ModelNotFound, "model"),
        ({"input": []}, InvalidRequest, "input"),
        ({"input": [""]}, InvalidRequest, "input"),
        ({"input": "a", "user": "someone"}, UnknownField, "user"),
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
