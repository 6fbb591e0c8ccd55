"""The engine's other networks, moderation and embeddings, beside the step loop.

They compute in the engine's thread, a small piece at each step's boundary: a second thread would
need a second pool of OpenMP threads, and the step loop's would sleep between products (measured:
`benchmarks/threads.py`). So an answer that streams waits for one piece, some milliseconds. The
weights are read on the loader's thread when they are asked for first.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog
import torch

from afina.data.moderation.pieces import distinct, joined, pieces_of
from afina.domain.encoders import ENCODER_ID, WEIGHTS
from afina.errors import AfinaError, Internal, InvalidRequest, Unavailable
from afina.model.encoder import Encoder, windows_of
from afina.serving.failures import status_of, to_failure
from afina.serving.listener import Exchange
from afina.serving.moderation_head import ModerationHead
from afina.serving.network_protocol import Embed, Embedded, Moderate, Moderated
from afina.settings import Settings

PIECE_TOKENS: Final = 384
"""Computed at one boundary: about ten milliseconds."""
MOST_TEXTS: Final = 4096
T = TypeVar("T")
Once = Callable[[str, Callable[[], Any]], Awaitable[Any]]
Post = Callable[[Callable[[], object]], None]
_LOG = structlog.get_logger(__name__)


class Networks:
    """The encoder and its moderation head. `post` has the engine's thread do something at its
    next boundary, `once` loads something on the loader's thread."""

    def __init__(self, settings: Settings, post: Post, once: Once, dtype: torch.dtype) -> None:
        self._folder = settings.encoders / ENCODER_ID
        self._post = post
        self._once = once
        self._dtype = dtype
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def moderate(self, exchange: Exchange) -> None:
        """Answers a Moderate."""
        asked = _decoded(exchange.body, Moderate)
        _check_count(len(asked.texts), "texts")
        self._begin(exchange, lambda: self._moderated(asked))

    def embed(self, exchange: Exchange) -> None:
        """Answers an Embed."""
        asked = _decoded(exchange.body, Embed)
        _check_count(len(asked.texts) + len(asked.ids), "texts")
        self._begin(exchange, lambda: self._embedded(asked))

    def close(self) -> None:
        """Answers nothing more."""
        for task in list(self._tasks):
            task.cancel()

    def _begin(self, exchange: Exchange, work: Callable[[], Awaitable[Any]]) -> None:
        task = asyncio.ensure_future(self._answer(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.on_gone = lambda: _cancel(task)

    async def _answer(self, exchange: Exchange, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            exchange.answer(200, msgspec.json.encode(await work()))
        except AfinaError as error:
            failure = to_failure(error)
            exchange.answer(status_of(failure), msgspec.json.encode(failure))
        except Exception as error:  # noqa: BLE001 - a fault of ours; its text may hold a user's
            _LOG.error("engine.network_failed", error=type(error).__name__)
            failure = to_failure(Internal("The engine could not answer this request."))
            exchange.answer(status_of(failure), msgspec.json.encode(failure))

    async def _moderated(self, asked: Moderate) -> Moderated:
        encoder, head = await self._loaded()
        flat, where, ids, tokens = await asyncio.to_thread(_read, asked.texts, encoder, head)
        scores: list[list[float]] = [[] for _ in ids]
        for part in _parts([len(one) for one in ids]):
            chosen = [ids[i] for i in part]
            words = [flat[i] for i in part]
            found = await self._compute(
                lambda chosen=chosen, words=words: head.scores(encoder, chosen, words)  # type: ignore[misc]
            )
            for index, row in zip(part, found, strict=True):
                scores[index] = row
        return Moderated(head.version, joined(where, scores), tokens)

    async def _embedded(self, asked: Embed) -> Embedded:
        encoder, _ = await self._loaded()
        ids = [*encoder.tokenizer.ids(asked.texts), *asked.ids]
        highest = max((max(one) for one in ids if one), default=0)
        if highest >= encoder.vocabulary or min((min(one) for one in ids if one), default=0) < 0:
            raise InvalidRequest(
                f"A token of 'input' is outside the model's {encoder.vocabulary} tokens.",
                param="input",
            )
        for number, is_own in enumerate(encoder.tokenizer.own(asked.ids)):
            if not is_own:
                raise InvalidRequest(
                    f"Invalid value for 'input': the ids number {number + 1} are not what the "
                    f"tokenizer of '{ENCODER_ID}' makes of any text; they mean other words here.",
                    param="input",
                    code="invalid_value",
                    remedy="Send the text itself (in LangChain: check_embedding_ctx_length=False).",
                )
        windows = [(number, one) for number, text in enumerate(ids) for one in windows_of(text)]
        sums = torch.zeros(len(ids), encoder.width)
        for part in _parts([len(one) for _, one in windows]):
            chosen = [windows[i][1] for i in part]
            found = await self._compute(lambda chosen=chosen: encoder.pool_ids(chosen).pooled)  # type: ignore[misc]
            for index, row in zip(part, found, strict=True):
                number, one = windows[index]
                sums[number] += row * max(1, len(one))
        vectors = [
            base64.b64encode(row.numpy().tobytes()).decode()
            for row in torch.nn.functional.normalize(sums, dim=-1)
        ]
        return Embedded(vectors, [len(one) + 2 for one in ids])

    async def _loaded(self) -> tuple[Encoder, ModerationHead]:
        if not (self._folder / WEIGHTS).is_file():
            raise Unavailable(
                "There is no model for moderation and embeddings on this machine.",
                code="encoder_missing",
                remedy=f"Fetch it: `afina models pull {ENCODER_ID}`.",
            )
        found: tuple[Encoder, ModerationHead] = await self._once(
            f"encoder {ENCODER_ID}", self._load
        )
        return found

    def _load(self) -> tuple[Encoder, ModerationHead]:
        known: tuple[Encoder, ModerationHead] | None = getattr(self, "_known", None)
        if known is None:
            encoder = Encoder(self._folder, self._dtype)
            known = self._known = (encoder, ModerationHead.load(encoder))
        return known

    async def _compute(self, act: Callable[[], T]) -> T:
        """`act` in the engine's thread, at its next boundary."""
        done: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                found = act()
            except Exception as error:  # noqa: BLE001 - handed to the one who asked
                self._loop.call_soon_threadsafe(_fail, done, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, done, found)

        self._post(run)
        return await done


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.cancelled():
        done.set_exception(error)


def _succeed(done: asyncio.Future[T], found: T) -> None:
    if not done.cancelled():
        done.set_result(found)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _read(
    texts: Sequence[str], encoder: Encoder, head: ModerationHead
) -> tuple[list[str], list[list[int]], list[list[int]], list[int]]:
    """The pieces of texts, each once; where each text's stand; their ids; the tokens of the texts.
    On a thread of its own: a long text would hold the streams of others."""
    flat, where = distinct([pieces_of(text) for text in texts])
    ids = encoder.tokenizer.ids([head.prefix + piece for piece in flat])
    return flat, where, ids, [len(one) + 2 for one in encoder.tokenizer.ids(texts)]


def _parts(lengths: Sequence[int]) -> list[list[int]]:
    """Indices from the shortest text to the longest, in parts of about PIECE_TOKENS tokens: texts
    of one length beside one another are not padded (the marks count too)."""
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        padded = lengths[index] + 2
        if not made or (len(made[-1]) + 1) * padded > PIECE_TOKENS:
            made.append([])
        made[-1].append(index)
    return made


def _check_count(count: int, param: str) -> None:
    if not 1 <= count <= MOST_TEXTS:
        raise InvalidRequest(f"From 1 to {MOST_TEXTS} texts at once, not {count}.", param=param)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request to the engine is wrong: {error}.") from None
