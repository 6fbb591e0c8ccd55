"""POST /v1/moderations: texts in, flags and scores out, in the wire's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from afina.data.moderation.categories import CATEGORIES
from afina.domain.accounts import Caller
from afina.domain.ids import MODERATION
from afina.errors import InvalidRequest, UnsupportedField
from afina.service.moderation import Moderator, Verdict, category_flags
from afina.service.platform import Platform
from afina.service.refusals import Wire
from afina.service.usage import record_moderation

MOST_INPUTS: Final = 1024
MOST_CHARACTERS: Final = 1_000_000
"""Of all inputs together."""
DEFAULT_MODEL: Final = "omni-moderation-latest"


class TextPart(Wire):
    """A part of an input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: dict[str, Any] | None = None


class ModerationRequest(Wire):
    """POST /v1/moderations. The models' names are those of the hosted service; one model answers
    for all of them, and the answer says which."""

    input: str | list[str] | list[TextPart]
    model: Literal[
        "omni-moderation-latest",
        "omni-moderation-2024-09-26",
        "text-moderation-latest",
        "text-moderation-stable",
        "afina-moderation-7",
    ] = DEFAULT_MODEL


@dataclass(frozen=True)
class ModerationService:
    """Answers requests for moderation, and notes them in the ledger."""

    platform: Platform
    moderator: Moderator

    def answer(self, caller: Caller, asked: ModerationRequest, request_id: str) -> dict[str, Any]:
        """The wire's answer. Raises InvalidRequest, UnsupportedField, and what the backend says.
        `request_id` names the usage in the ledger."""
        verdicts = self.moderator.verdicts(_texts(asked))
        model, tokens = self.moderator.model, sum(verdict.tokens for verdict in verdicts)
        record_moderation(self.platform, caller, request_id, model, tokens)
        if isinstance(asked.input, list) and asked.input and isinstance(asked.input[0], TextPart):
            verdicts = [self.moderator.together(verdicts)]
        return {
            "id": self.platform.ids.new(MODERATION),
            "model": model,
            "results": [_result(verdict) for verdict in verdicts],
        }


def _texts(asked: ModerationRequest) -> list[str]:
    given: list[str | TextPart]
    given = [asked.input] if isinstance(asked.input, str) else list(asked.input)
    if not 1 <= len(given) <= MOST_INPUTS:
        raise InvalidRequest(
            f"Invalid value for 'input': it may hold 1 to {MOST_INPUTS} texts.",
            param="input",
            code="invalid_value",
        )
    texts: list[str] = []
    for index, one in enumerate(given):
        texts.append(_text(index, one) if isinstance(one, TextPart) else one)
    if sum(len(text) for text in texts) > MOST_CHARACTERS:
        raise InvalidRequest(
            f"Invalid value for 'input': all texts together may hold {MOST_CHARACTERS} characters.",
            param="input",
            code="string_above_max_length",
        )
    return texts


def _text(index: int, part: TextPart) -> str:
    if part.type == "image_url" or part.image_url is not None:
        raise UnsupportedField(
            "Images are not moderated here: send text alone.", param=f"input[{index}]"
        )
    if part.text is None:
        raise InvalidRequest(
            f"Missing required parameter: 'input[{index}].text'.",
            param=f"input[{index}].text",
            code="missing_required_parameter",
        )
    return part.text


def _result(verdict: Verdict) -> dict[str, Any]:
    return {
        "flagged": verdict.is_flagged,
        "categories": category_flags(verdict),
        "category_scores": dict(zip(CATEGORIES, verdict.scores, strict=True)),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
