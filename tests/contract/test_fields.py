"""Every field that the client's own types know is honoured or refused by name, never unknown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from openai import resources
from openai.types import FilePurpose, file_create_params, file_list_params
from openai.types import completion_create_params as plain_params
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
    completion_create_params,
    completion_list_params,
)
from openai.types.chat.completions import message_list_params
from openai.types.fine_tuning import job_create_params, job_list_events_params, job_list_params
from openai.types.fine_tuning.jobs import checkpoint_list_params
from openai.types.responses import (
    EasyInputMessageParam,
    FunctionToolParam,
    ResponseFunctionToolCallParam,
    input_item_list_params,
    response_create_params,
    response_retrieve_params,
)
from openai.types.responses.response_input_item_param import FunctionCallOutput
from pydantic import BaseModel

from afina.api import requests
from afina.api.absent import absence
from afina.api.app import create_app
from afina.api.routes import chat, responses
from afina.errors import InvalidRequest, UnknownField
from afina.service import chat_request, response_items
from afina.service.chat_request import ChatRequest, refuse_unsupported
from afina.service.completion_request import CompletionRequest
from afina.service.refusals import parse
from afina.service.response_request import ResponseRequest, ResponseTool
from afina.settings import Settings

SHAPES: list[tuple[type, type[BaseModel]]] = [
    (completion_create_params.CompletionCreateParamsBase, ChatRequest),
    (completion_list_params.CompletionListParams, chat.CompletionListQuery),
    (message_list_params.MessageListParams, chat.MessageListQuery),
    (plain_params.CompletionCreateParamsBase, CompletionRequest),
    (response_create_params.ResponseCreateParamsBase, ResponseRequest),
    (response_retrieve_params.ResponseRetrieveParamsBase, responses.ResponseQuery),
    (input_item_list_params.InputItemListParams, responses.ItemListQuery),
    (FunctionToolParam, ResponseTool),
    (EasyInputMessageParam, response_items.MessageItem),
    (ResponseFunctionToolCallParam, response_items.CallItem),
    (FunctionCallOutput, response_items.CallOutputItem),
    (ChatCompletionStreamOptionsParam, chat_request.StreamOptions),
    (job_create_params.JobCreateParams, requests.JobCreate),
    (job_create_params.Method, requests.Method),
    (job_list_params.JobListParams, requests.JobListQuery),
    (job_list_events_params.JobListEventsParams, requests.EventListQuery),
    (checkpoint_list_params.CheckpointListParams, requests.CheckpointListQuery),
    (file_list_params.FileListParams, requests.FileListQuery),
    (file_create_params.ExpiresAfter, requests.ExpiresAfter),
]
MESSAGES: dict[str, type[BaseModel]] = {
    "system": chat_request.SystemMessage,
    "developer": chat_request.SystemMessage,
    "user": chat_request.UserMessage,
    "assistant": chat_request.AssistantMessage,
    "tool": chat_request.ToolMessage,
    "function": chat_request.FunctionMessage,
}
PARTS: dict[str, type[BaseModel]] = {
    "text": chat_request.TextPart,
    "image_url": chat_request.ImagePart,
    "input_audio": chat_request.AudioPart,
    "file": chat_request.FilePart,
}
NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "n": 1,
    "store": False,
    "stream": False,
    "tools": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "service_tier": "auto",
    "metadata": {},
    "reasoning_effort": "none",
    "verbosity": "medium",
    "prompt_cache_retention": "in_memory",
}
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(("theirs", "ours"), SHAPES, ids=lambda shape: shape.__name__)
def test_the_client_sends_no_field_that_is_unknown_here(theirs: type, ours: type) -> None:
    assert issubclass(ours, BaseModel)
    known = {field.alias or name for name, field in ours.model_fields.items()}
    unknown = set(get_type_hints(theirs)) - known
    assert unknown == set()


def variants(union: Any) -> list[type]:
    return list(union.__args__)


@pytest.mark.parametrize("theirs", variants(ChatCompletionMessageParam), ids=lambda m: m.__name__)
def test_messages_of_the_client_have_no_unknown_key(theirs: type) -> None:
    hints = get_type_hints(theirs)
    role = hints["role"].__args__[0]
    assert set(hints) <= set(MESSAGES[role].model_fields)


@pytest.mark.parametrize(
    "theirs", variants(ChatCompletionContentPartParam), ids=lambda p: p.__name__
)
def test_content_parts_of_the_client_have_no_unknown_key(theirs: type) -> None:
    hints = get_type_hints(theirs)
    kind = hints["type"].__args__[0]
    assert set(hints) <= set(PARTS[kind].model_fields)


def test_every_purpose_of_the_client_is_known() -> None:
    for purpose in get_args(FilePurpose):
        requests.UploadForm.model_validate({"purpose": purpose})


@pytest.mark.parametrize("name", sorted(set(ChatRequest.model_fields) - {"model", "messages"}))
def test_null_is_neutral_wherever_the_wire_allows_it(name: str) -> None:
    refuse_unsupported(parse(ChatRequest, {**HELLO, name: None}))


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_neutral_value_is_no_reason_to_refuse(name: str) -> None:
    refuse_unsupported(parse(ChatRequest, {**HELLO, name: NEUTRAL[name]}))


@pytest.mark.parametrize(
    "hint",
    [
        {"prompt_cache_key": "thread-1"},
        {"user": "someone", "safety_identifier": "s"},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "description": "An x.", "schema": {}},
            }
        },
    ],
)
def test_what_only_describes_a_request_is_no_reason_to_refuse(hint: dict[str, Any]) -> None:
    asked = chat_request.question(parse(ChatRequest, {**HELLO, **hint}))
    assert asked.sampling == chat_request.question(parse(ChatRequest, HELLO)).sampling
    labels = {name: value for name, value in hint.items() if name != "response_format"}
    assert asked.labels == labels


def test_a_refusal_of_a_field_names_the_field() -> None:
    for name in ("audio", "prediction", "web_search_options", "moderation"):
        asked = {**HELLO, name: {}}
        with pytest.raises(InvalidRequest) as refused:
            refuse_unsupported(parse(ChatRequest, asked))
        assert refused.value.param == name
        assert not isinstance(refused.value, UnknownField)


def test_history_with_tools_needs_no_definitions() -> None:
    said: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "Rain."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    request = parse(ChatRequest, {"model": "m", "messages": said})
    refuse_unsupported(request)
    plain = chat_request.plain_messages(request)
    assert [m["role"] for m in plain] == [m["role"] for m in said]
    assert plain[2]["tool_calls"][0]["function"]["name"] == "f"


_CALL = re.compile(
    r'self\._(?:post|get|delete|get_api_list)\(\s*(?:path_template\(\s*)?f?"(/[^"?]*)'
)


def paths_of_the_client() -> set[str]:
    """Every path that the client's sources name, with x in the place of what is put in."""
    assert resources.__file__ is not None
    sources = Path(resources.__file__).parent.rglob("*.py")
    found = {path for source in sources for path in _CALL.findall(source.read_text())}
    return {re.sub(r"\{[^}]*\}", "x", path) for path in found}


def paths_that_are_offered(folder: Path) -> set[str]:
    """The same of our own document."""
    paths = create_app(Settings(data=folder)).openapi()["paths"]
    return {re.sub(r"\{[^}]*\}", "x", path.removeprefix("/v1")) for path in paths}


def test_every_path_of_the_client_is_offered_or_refused_by_name(tmp_path: Path) -> None:
    paths, offered = paths_of_the_client(), paths_that_are_offered(tmp_path)
    assert len(paths) > 150
    assert len(paths & offered) > 40
    unknown = {
        path
        for path in paths - offered
        if absence("GET", f"/v1{path}") is None and absence("POST", f"/v1{path}") is None
    }
    assert unknown == set()
