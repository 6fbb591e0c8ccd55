"""Inputs for embeddings that cannot be are refused for what they are."""

from __future__ import annotations

from typing import Any

import pytest

from afina.errors import InvalidRequest
from afina.service.embeddings import EmbeddingRequest
from afina.service.refusals import parse


@pytest.mark.parametrize("given", [[10**12], [-1], [[1], [2**31]], [2**70]])
def test_ids_beyond_every_vocabulary_are_told_as_ids_and_not_as_texts(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="ids of tokens are from 0 to") as told:
        parse(EmbeddingRequest, {"model": "e", "input": given})
    assert (told.value.param, told.value.code) == ("input", "invalid_value")


@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2], [[1], [2**31 - 1]]])
def test_texts_and_ids_are_taken_one_or_several(given: Any) -> None:
    assert parse(EmbeddingRequest, {"model": "e", "input": given}).input == given
