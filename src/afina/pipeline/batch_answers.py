"""Who answers a line of a batch: the same service functions that answer a request of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import structlog
from pydantic import BaseModel

from afina.domain.accounts import Caller
from afina.domain.batches import Batch, BatchLine, line_key, line_seed
from afina.domain.ids import BATCH_LINE, REQUEST
from afina.errors import AfinaError, EngineFailed, Internal, InvalidRequest, Overloaded, Unavailable
from afina.pipeline.faults import fault_of
from afina.service.chat import ChatService
from afina.service.completions import CompletionsService
from afina.service.embeddings import EmbeddingRequest, EmbeddingService
from afina.service.guard import GuardedEngine
from afina.service.moderation import moderator_of
from afina.service.moderation_request import ModerationRequest, ModerationService
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.service.responses import ResponsesService
from afina.serving.client import EngineClient
from afina.serving.protocol import Delta, Generate, Score, Scored
from afina.serving.protocol import Final as Last
from afina.store.batches import LineResult

M = TypeVar("M", bound=BaseModel)
log = structlog.get_logger()
Answer = Callable[[Caller, object, str], Awaitable[bytes]]
TRIES: Final = 3
"""How often a line is tried again after a fault of the engine."""
_PAUSE_S: Final = 0.5
_SEEDED: Final = ("/v1/chat/completions", "/v1/completions")


class BatchEngine:
    """The engine, told whose batch asks: the journal's records carry its id."""

    def __init__(self, engine: EngineClient, batch: Batch) -> None:
        self._engine = engine
        self._batch = batch

    async def generate(self, request: Generate) -> AsyncGenerator[Delta | Last, None]:
        """As the engine's."""
        tag = {**request.tag, "batch": self._batch.id}
        lines: AsyncIterator[Delta | Last] = self._engine.generate(
            msgspec.structs.replace(request, tag=tag, background=True)
        )
        try:
            async for line in lines:
                yield line
        finally:
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()

    async def score(self, request: Score) -> Scored:
        """As the engine's."""
        tag = {**request.tag, "batch": self._batch.id}
        return await self._engine.score(msgspec.structs.replace(request, tag=tag, background=True))


def answerer(platform: Platform, batch: Batch) -> Answer:
    """What answers the lines of this batch."""
    client = EngineClient(platform.settings.engine_socket)
    scorer = BatchEngine(client, batch)
    engine = GuardedEngine(platform, scorer)
    match batch.endpoint:
        case "/v1/chat/completions":
            return ChatService(platform, engine).answer
        case "/v1/completions":
            return CompletionsService(platform, engine, scorer).answer
        case "/v1/responses":
            return ResponsesService(platform, engine).answer
        case "/v1/embeddings":
            return _plain(EmbeddingRequest, EmbeddingService(platform).answer)
        case "/v1/moderations":
            service = ModerationService(platform, moderator_of(platform.settings))
            return _plain(ModerationRequest, service.answer)
    raise Internal(f"Nothing answers {batch.endpoint}, which is offered to batches.")


def _plain(shape: type[M], answer: Callable[[Caller, M, str], Mapping[str, Any]]) -> Answer:
    """An answerer of a service that waits in its thread."""

    async def answered(caller: Caller, body: object, request_id: str) -> bytes:
        asked = parse(shape, body)
        return msgspec.json.encode(await asyncio.to_thread(answer, caller, asked, request_id))

    return answered


async def answer_line(answer: Answer, batch: Batch, line: BatchLine) -> LineResult:
    """The line's result. What is busy or away is asked again for as long as it takes; whoever
    calls ends the wait."""
    key = line_key(batch.id, line.number)
    caller = Caller(batch.project_id, batch.key_id or "", batch.organization_id)
    body = dict(line.body)
    if batch.endpoint in _SEEDED and body.get("seed") is None:
        # So that a line that is repeated after a crash gets the same answer and the same bill.
        body["seed"] = line_seed(batch.id, line.number)
    faults = 0
    while True:
        try:
            raw = await answer(caller, body, REQUEST + key)
            return _result(batch, line, 200, json.loads(raw))
        except EngineFailed as error:
            faults += 1
            if faults >= TRIES:
                return _refused(batch, line, error)
        except (Overloaded, Unavailable):
            pass
        except InvalidRequest as error:
            # The engine still has this line's request from a worker that has just died.
            if error.param != "request_id":
                return _refused(batch, line, error)
        except AfinaError as error:
            return _refused(batch, line, error)
        except Exception as error:  # noqa: BLE001 - logged; one line must not hold up the others
            log.error("batch.line", batch=batch.id, line=line.number, **fault_of(error))
            return _refused(batch, line, Internal("The server had an error with this line."))
        await asyncio.sleep(_PAUSE_S)


def unanswered(batch: Batch, number: int, custom_id: str, code: str, message: str) -> LineResult:
    """The result of a line that nobody asked for in time."""
    shown = _line(batch, number, custom_id)
    shown["error"] = {"code": code, "message": message}
    return LineResult(number, False, json.dumps(shown, ensure_ascii=False))


def _refused(batch: Batch, line: BatchLine, error: AfinaError) -> LineResult:
    told = {
        "message": error.one_line(),
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return _result(batch, line, error.status, {"error": told})


def _result(batch: Batch, line: BatchLine, status: int, body: Mapping[str, Any]) -> LineResult:
    shown = _line(batch, line.number, line.custom_id)
    shown["response"] = {
        "status_code": status,
        "request_id": REQUEST + line_key(batch.id, line.number),
        "body": body,
    }
    return LineResult(line.number, status == 200, json.dumps(shown, ensure_ascii=False))


def _line(batch: Batch, number: int, custom_id: str) -> dict[str, Any]:
    return {
        "id": BATCH_LINE + line_key(batch.id, number),
        "custom_id": custom_id,
        "response": None,
        "error": None,
    }
