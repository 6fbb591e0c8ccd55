"""Chats of many turns from a table with a turn, or a question and its answer, in each record.

Records with the same value in a column are one conversation, in the order in which they stand, or
in that of another column. All conversations are held in memory, as their records need not stand
together.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from afina.data.cells import cell_text
from afina.data.columns import listed
from afina.data.layouts import role_of
from afina.data.readers.records import Dropped
from afina.errors import InvalidRequest

_ROLE_COLUMNS: Final = (
    *("role", "speaker", "author", "from", "sender", "who"),
    *("rol", "quien", "quién", "autor", "remitente", "papel", "quem", "remetente"),
)
_TEXT_COLUMNS: Final = (
    *("content", "text", "message", "value", "body", "utterance"),
    *("texto", "mensaje", "contenido", "mensagem", "conteudo", "conteúdo"),
)
_ORDER_COLUMNS: Final = (
    *("turn", "order", "index", "position", "sequence", "seq", "step", "message_index", "turn_id"),
    *("timestamp", "created_at", "sent_at", "date", "datetime", "time"),
    *("turno", "orden", "posición", "posicion", "fecha", "hora"),
    *("ordem", "posição", "posicao", "data"),
)
_GROUP_COLUMNS: Final = (
    *("conversation", "conversation_id", "conversationid", "chat_id", "thread", "thread_id"),
    *("session", "session_id", "dialog_id", "dialogue_id", "ticket", "ticket_id"),
    *("conversación", "conversacion", "id_conversacion", "conversacion_id", "hilo", "sesión"),
    *("conversa", "id_conversa", "conversa_id", "sessão"),
)
NO_CONVERSATION: Final = "the conversation is not named"
NO_ORDER: Final = "the order of the conversation is not known"


@dataclass(frozen=True)
class LogColumns:
    """Where a log of messages has its conversation, its speaker and its text."""

    group: str
    role: str
    text: str


@dataclass(frozen=True)
class Turns:
    """The messages of one record, with what they are put together by."""

    line: int | None
    conversation: str
    messages: list[dict[str, Any]]
    place: float | None = None
    """Where in its conversation it stands; None where its column says nothing."""


@dataclass
class Grouped:
    """Conversations, in the order in which they begin, and records that are of none."""

    chats: list[list[dict[str, Any]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    out_of_order: int = 0
    """Conversations that stand in another order than their column puts them in."""


def log_columns(columns: Sequence[str], group: str) -> LogColumns | None:
    """The columns of a log of single messages; None where rows hold question and answer. Raises
    InvalidRequest where there is no column `group`."""
    by_name = {column.strip().lower(): column for column in columns}
    found = by_name.get(group.strip().lower())
    if found is None:
        raise InvalidRequest(
            f"There is no column {group!r} for --group.",
            param="group",
            remedy=listed(columns),
        )
    log = log_of(columns)
    return LogColumns(found, *log) if log is not None else None


def log_of(columns: Sequence[str]) -> tuple[str, str] | None:
    """The columns of who speaks and of what, where a table is a log of messages."""
    by_name = {column.strip().lower(): column for column in columns}
    role = next((by_name[name] for name in _ROLE_COLUMNS if name in by_name), None)
    text = next((by_name[name] for name in _TEXT_COLUMNS if name in by_name), None)
    return (role, text) if role and text else None


def likely_group(columns: Sequence[str]) -> str | None:
    """The column that may say which conversation a record is of."""
    by_name = {column.strip().lower(): column for column in columns}
    return next((by_name[name] for name in _GROUP_COLUMNS if name in by_name), None)


def likely_order(columns: Sequence[str]) -> str | None:
    """The column that may say in which order the turns of a conversation stand."""
    by_name = {column.strip().lower(): column for column in columns}
    return next((by_name[name] for name in _ORDER_COLUMNS if name in by_name), None)


def log_message(values: Mapping[str, Any], columns: LogColumns) -> dict[str, Any]:
    """A record of a log as a message."""
    return {
        "role": role_of(values.get(columns.role)),
        "content": cell_text(values.get(columns.text)),
    }


def place_of(value: Any) -> float | None:
    """A number, or a moment as ISO 8601 writes it, as a number; None for what is neither."""
    text = cell_text(value).strip()
    try:
        number = float(text)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def grouped(records: Iterable[Turns], *, is_ordered: bool) -> Grouped:
    """The records put together; `is_ordered`: by their places, else as they stand. A system message
    that stands in every record is kept once."""
    found, by_name = Grouped(), dict[str, list[Turns]]()
    for record in records:
        if record.conversation.strip():
            by_name.setdefault(record.conversation, []).append(record)
        else:
            found.dropped.append(Dropped(record.line, NO_CONVERSATION))
    for turns in by_name.values():
        in_order = _in_order(turns)
        found.out_of_order += in_order is not None and in_order != turns
        if not is_ordered or in_order is not None:
            found.chats.append(_joined(in_order if is_ordered and in_order else turns))
        else:
            found.dropped += [Dropped(record.line, NO_ORDER) for record in turns]
    return found


def _in_order(turns: list[Turns]) -> list[Turns] | None:
    """Those of one place stay as they are; None where a place is not known."""
    placed = [(place, turn) for turn in turns if (place := turn.place) is not None]
    if len(placed) < len(turns):
        return None
    return [turn for _, turn in sorted(placed, key=lambda pair: pair[0])]


def _joined(turns: Iterable[Turns]) -> list[dict[str, Any]]:
    chat: list[dict[str, Any]] = []
    for turn in turns:
        said = turn.messages
        repeated = bool(chat) and said[:1] == chat[:1] and chat[0]["role"] == "system"
        chat += said[1:] if repeated else said
    return chat
