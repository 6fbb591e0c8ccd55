"""Responses: created, shown, deleted; the way on from an earlier one; nothing of HTTP here.

A response is kept for 30 days unless the request says `store: false`. With `previous_response_id`
the earlier items and answers come first, read along the chain of what is still kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from anyio import to_thread

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.errors import EngineFailed, InvalidRequest, NotFound
from afina.service.asking import Asked, Asker, Engine, Question
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.service.response_answer import ResponseBuilder, encoded, written
from afina.service.response_request import (
    ResponseCount,
    ResponseRequest,
    input_items,
    question,
    refuse_unsupported,
)
from afina.service.stored import KEPT_S
from afina.serving.protocol import Final as Last
from afina.store import answers
from afina.store.answers import StoredResponse

_LONGEST_CHAIN: Final = 1000


@dataclass(frozen=True)
class PreparedResponse:
    """A request that is ready for the engine, and the document that it fills."""

    caller: Caller
    request: ResponseRequest
    asked: Asked
    document: dict[str, Any]
    items: list[dict[str, Any]]

    @property
    def stream(self) -> bool:
        return bool(self.request.stream)


class ResponsesService:
    """Answers by responses."""

    def __init__(self, platform: Platform, engine: Engine) -> None:
        self._platform = platform
        self._asker = Asker(platform, engine)

    def prepare(
        self, caller: Caller, request: ResponseRequest, request_id: str
    ) -> PreparedResponse:
        """Resolves, renders and checks. Raises UnsupportedField, ModelNotFound, ContextTooLong,
        InvalidRequest, and NotFound for a previous response that is not there."""
        asked = self._asker.ask(caller, self._question(caller, request), request_id)
        return PreparedResponse(
            caller,
            request,
            asked,
            self._document(request, asked),
            self._named(input_items(request)),
        )

    async def answer(self, caller: Caller, body: object, request_id: str) -> bytes:
        """The whole answer to a request's JSON. Raises what `prepare` and the engine say."""
        request = parse(ResponseRequest, body)
        if request.stream:
            raise InvalidRequest(
                "'stream' is only possible in a request of its own.",
                param="stream",
                code="invalid_value",
            )
        prepared = await to_thread.run_sync(self.prepare, caller, request, request_id)
        return await self.complete(prepared)

    async def complete(self, prepared: PreparedResponse) -> bytes:
        """The whole response as JSON. Raises what the engine says."""
        builder = self._builder(prepared)
        async with aclosing(self._asker.lines(prepared.asked.generate)) as lines:
            async for line in lines:
                if isinstance(line, Last):
                    builder.finish(line, self._platform.now())
                    await self._keep(prepared, builder.document)
                    return encoded(builder.document)
                builder.take(line)
        raise EngineFailed("The engine's answer ended without its final line; it is not whole.")

    async def stream(self, prepared: PreparedResponse) -> AsyncGenerator[bytes]:
        """The response as server-sent events, with the laws of `ChatService.stream`."""
        options = prepared.request.stream_options
        padded = options is not None and bool(options.include_obfuscation)
        padding = self._platform.ids if padded else None
        builder = self._builder(prepared)
        events = builder.begin()
        async with aclosing(self._asker.lines(prepared.asked.generate)) as lines:
            async for line in lines:
                if isinstance(line, Last):
                    events += builder.finish(line, self._platform.now())
                    await self._keep(prepared, builder.document)
                else:
                    events += builder.take(line)
                if events:
                    yield b"".join(written(event, padding) for event in events)
                events = []

    def count(self, caller: Caller, request: ResponseCount) -> int:
        """Tokens of a request's input, as its model would read them."""
        asked = self._asker.ask(caller, self._question(caller, request), "count")
        return len(asked.generate.prompt)

    def _question(self, caller: Caller, request: ResponseCount) -> Question:
        refuse_unsupported(request)
        return question(request, self._earlier(caller, request.previous_response_id))

    def _earlier(self, caller: Caller, id: str | None) -> list[dict[str, Any]]:
        """Items and answers of the responses before, oldest first."""
        items: list[dict[str, Any]] = []
        steps = 0
        while id is not None:
            steps += 1
            kept = find_response(self._platform, caller, id, param="previous_response_id")
            if steps > _LONGEST_CHAIN:
                raise InvalidRequest(
                    f"More than {_LONGEST_CHAIN} responses follow each other.",
                    param="previous_response_id",
                )
            items[:0] = [*map(dict, kept.items), *map(dict, kept.document["output"])]
            id = kept.previous_id
        return items

    def _named(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items with ids, as they are listed."""
        named = []
        for item in items:
            content = item.get("content")
            if isinstance(content, str):
                kind = "output_text" if item["role"] == "assistant" else "input_text"
                item = {**item, "content": [{"type": kind, "text": content}]}
            new = {"id": self._platform.ids.new(ids.MESSAGE), "status": "completed"}
            named.append({**new, **item})
        return named

    def _builder(self, prepared: PreparedResponse) -> ResponseBuilder:
        return ResponseBuilder(
            prepared.document,
            prepared.asked.syntax,
            self._platform.ids,
            logprobs=prepared.request.wants_logprobs,
        )

    async def _keep(self, prepared: PreparedResponse, document: dict[str, Any]) -> None:
        if not prepared.request.stored:
            return
        kept = StoredResponse(
            id=document["id"],
            created_at=document["created_at"],
            expires_at=self._platform.now() + KEPT_S,
            model=document["model"],
            previous_id=document["previous_response_id"],
            status=document["status"],
            items=tuple(prepared.items),
            document=document,
        )
        await to_thread.run_sync(self._insert, prepared.caller, kept)

    def _insert(self, caller: Caller, kept: StoredResponse) -> None:
        with self._platform.database.write() as tx:
            answers.insert_response(tx, kept, caller, self._platform.clock.now())

    def _document(self, request: ResponseRequest, asked: Asked) -> dict[str, Any]:
        """The response before anything was answered, with what it was asked with."""
        form = None if request.text is None else request.text.format
        return {
            "id": self._platform.ids.new(ids.RESPONSE),
            "object": "response",
            "created_at": self._platform.now(),
            "status": "in_progress",
            "completed_at": None,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": None,
            "model": asked.model.name,
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": None,
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": request.stored,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {
                "format": {"type": "text"}
                if form is None
                else form.model_dump(exclude_none=True, by_alias=True)
            },
            "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
            "tools": [
                {"parameters": None, "strict": False, "description": None, **tool}
                for tool in request.tools or ()
            ],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": request.user,
            "metadata": request.metadata or {},
        }


def find_response(
    platform: Platform, caller: Caller, id: str, param: str = "response_id"
) -> StoredResponse:
    """Raises NotFound."""
    with platform.database.read() as tx:
        found = answers.get_response(tx, id, caller.project_id, platform.now())
    if found is None:
        raise NotFound(f"Response with id '{id[:100]}' not found.", param=param)
    return found


def delete_response(platform: Platform, caller: Caller, id: str) -> None:
    """Deletes a response. Raises NotFound."""
    find_response(platform, caller, id)
    with platform.database.write() as tx:
        answers.delete_response(tx, id)


def cancel_response(platform: Platform, caller: Caller, id: str) -> None:
    """Raises NotFound, or InvalidRequest: a response is over when it has an id to cancel it by."""
    find_response(platform, caller, id)
    raise InvalidRequest(
        "Only a response that was made with 'background' can be cancelled; close the connection "
        "of one that is being answered.",
        code="invalid_value",
    )
