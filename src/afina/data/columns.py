"""Which column is the question and which the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from afina.data.remarks import Remark, remark
from afina.errors import InvalidRequest

QUESTION_NAMES: Final = (
    *("user", "question", "prompt", "instruction", "input", "query"),
    *("usuario", "pregunta", "consulta", "usuário", "pergunta", "frage"),
)
ANSWER_NAMES: Final = (
    *("assistant", "answer", "completion", "response", "output", "reply"),
    *("asistente", "respuesta", "assistente", "resposta", "antwort"),
)
_LESS_USUAL: Final = {
    QUESTION_NAMES: ("q", "questions", "preguntas", "perguntas"),
    ANSWER_NAMES: ("a", "answers", "respuestas", "respostas"),
}
"""Looked for where none of the names above is there: beside them they often mean something else."""
_MOST_LISTED: Final = 30
_LONG_NAME: Final = 40


@dataclass(frozen=True)
class Mapped:
    """The columns' names as the file spells them; `is_chat`: rows hold `messages` already."""

    user: str = ""
    assistant: str = ""
    system: str | None = None
    is_chat: bool = False
    notes: list[Remark] = field(default_factory=list)


def map_columns(
    columns: Sequence[str], user: str | None, assistant: str | None, system: str | None
) -> Mapped:
    """The columns that were named, or the only ones whose names say what they are. Raises
    InvalidRequest that lists the columns there are."""
    if user is None and assistant is None and system is None and "messages" in columns:
        return Mapped(is_chat=True)
    notes: list[Remark] = []
    found_user = _find(columns, user, "user", QUESTION_NAMES, notes)
    found_assistant = _find(columns, assistant, "assistant", ANSWER_NAMES, notes)
    found_system = None if system is None else _find(columns, system, "system-column", (), notes)
    if found_user == found_assistant:
        raise InvalidRequest(
            f"Question and answer are the same column, {found_user!r}.",
            param="assistant",
            remedy=listed(columns),
        )
    return Mapped(found_user, found_assistant, found_system, notes=notes)


def _find(
    columns: Sequence[str],
    name: str | None,
    flag: str,
    usual: tuple[str, ...],
    notes: list[Remark],
) -> str:
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(_plain(column), []).append(column)
    wanted = usual if name is None else (_plain(name),)
    found = [column for word in wanted for column in by_name.get(word, ())]
    if name is None and not found:
        found = [c for word in _LESS_USUAL.get(usual, ()) for c in by_name.get(word, ())]
    if name is not None and name in found:
        return name
    if len(found) == 1:
        if name is None:
            notes.append(remark("taken_as", column=repr(found[0]), flag=flag))
        return found[0]
    if name is None:
        raise InvalidRequest(_unclear(columns, found, flag), param=flag, remedy=listed(columns))
    what = "no column" if not found else "more than one column"
    raise InvalidRequest(
        f"There is {what} {name!r} for --{flag}.", param=flag, remedy=listed(columns)
    )


_SAYS: Final = {"user": "the user says", "assistant": "the assistant answers"}


def _unclear(columns: Sequence[str], found: Sequence[str], flag: str) -> str:
    """Why a column has to be named, and how."""
    what = _SAYS.get(flag, flag)
    if found:
        those = ", ".join(map(repr, found))
        return f"More than one column could be what {what}: {those}. Name one with --{flag}."
    usual = QUESTION_NAMES if flag == "user" else ANSWER_NAMES
    called = f"none is called {', '.join(usual[:3])} or the like"
    if not columns:
        return f"No column holds what {what}."
    likely = [column for column in columns if _words(column) & set(usual)]
    perhaps = f", perhaps --{flag} {likely[0]!r}" if len(likely) == 1 else ""
    marks = "; whole chats with <|im_start|> in 'text' are --layout chatml"
    chats = marks if "text" in columns else ""
    return f"No column is plainly what {what}: {called}. Name it with --{flag}{perhaps}{chats}."


def _plain(name: str) -> str:
    """A name as it is compared: `Pregunta:` and `* pregunta` are one."""
    return name.strip(" \t\r\n:*").lower()


def _words(name: str) -> set[str]:
    """The words of a column's name that are more than a letter."""
    return {word for word in re.split(r"[\W_]+", name.lower()) if len(word) > 1}


def name_a_pair(columns: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether these can be the names of a table's columns: all that the user named are there, or,
    where none is named, a question and an answer."""
    names = {_plain(column) for column in columns}
    if wanted:
        return all(_plain(name) in names for name in wanted)
    if "messages" in names or "conversations" in names:
        return True
    return not names.isdisjoint(QUESTION_NAMES) and not names.isdisjoint(ANSWER_NAMES)


def listed(columns: Sequence[str]) -> str:
    """The columns for a message, the first of them where they are many."""
    if not columns:
        return "The file has no columns: it holds no names in a first row, or no objects."
    more = len(columns) - _MOST_LISTED
    named = ", ".join(map(repr, columns[:_MOST_LISTED]))
    said = f"The columns are: {named}{f' and {more} more' if more > 0 else ''}."
    if all(" " in column.strip() for column in columns) or any(
        len(column) > _LONG_NAME or column.endswith(("?", ".", "!")) for column in columns
    ):
        said += " If those are a row, put a first row with names above it."
    return said
