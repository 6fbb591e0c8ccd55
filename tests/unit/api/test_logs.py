"""Logs: no secret gets through, and an exception's message, which may hold a text, is left out."""

from __future__ import annotations

import pytest

from afina.api.logs import frames, redact, without_secrets


@pytest.mark.parametrize(
    "text", ["sk-afina-abcdefgh1234", "Bearer eyJhbGciOi.x", "hf_abcdefghijk", "whsec_MfKQ9r8GKY"]
)
def test_what_looks_like_a_secret_is_cut_out(text: str) -> None:
    assert text not in without_secrets(f"a {text} b")
    assert redact(None, "", {"path": f"/v1/models/{text}"})["path"] != f"/v1/models/{text}"


def test_other_texts_stay_as_they_are() -> None:
    for text in ("/v1/files/file-abc", "ft:base:local:risk-model:abcdefgh", "task-list", "basket"):
        assert without_secrets(text) == text


def test_frames_tell_places_and_no_values() -> None:
    try:
        raise ValueError("a user's text")
    except ValueError as error:
        told = frames(error.__traceback__)
    assert "test_logs.py" in told[-1]
    assert "user" not in " ".join(told)
