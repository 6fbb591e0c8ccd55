"""Chat to tokens, for training and for serving alike: the one place where it happens.

    messages -> conversation (the template's dialect) -> marks -> template -> turns -> encoding

Laws, held by tests/parity/test_renderer.py: ids equal those of transformers' own
`apply_chat_template`; what a user wrote never becomes a control token; `training_row` begins with
exactly the ids of `prompt` for each turn that it trains. The one exception to the first law: an
answer that begins with characters which the tokenizer would join to the template's own (mostly
white space) is cut off from them, since the model can only be asked for what follows its prompt.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from afina.domain.clock import SYSTEM_CLOCK, ManualClock
from afina.errors import BaseRefused, InvalidRequest
from afina.text import tools as tool_text
from afina.text.calls import OWN, CallSyntax, learn_calls
from afina.text.conversation import Conversation, Dialect, read_conversation
from afina.text.encoding import Encoded, TemplateText, TextEncoder
from afina.text.marks import mark_conversation
from afina.text.template import ChatTemplate, TemplateRefused, read_template
from afina.text.tokenizer import ChatTokenizer
from afina.text.turns import TurnText, find_turns, header_places, learn_template, turns_by_prefix

RENDERER_VERSION: Final = 1
_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length")
_CONTEXT_UNKNOWN: Final = 2048
_TELLERS: Final = ("system", "developer")
_SPEAKERS: Final = (*_TELLERS, "user", "assistant")

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
Plan = list[tuple[TemplateText, TurnText]] | InvalidRequest
"""The texts of a chat with their turns, or why it cannot be rendered."""


@dataclass(frozen=True)
class RenderedRow:
    """A training row: its ids, and which of them carry loss."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class TokenRow:
    """The same in arrays, for many rows."""

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]


class Renderer:
    """The template and the tokenizer of a model folder."""

    def __init__(self, folder: Path, moment: int | None = None) -> None:
        self.folder: Path = folder.absolute()
        clock = SYSTEM_CLOCK if moment is None else ManualClock(float(moment))
        self._template = ChatTemplate(read_template(folder), clock)
        self.moment: int | None = moment if self._template.asks_the_time else None
        """When the template believes it is, in Unix seconds; None where it does not ask, or where
        it is told the truth."""
        tokenizer = ChatTokenizer.load(folder)
        facts = learn_template(self._template, tokenizer)
        self.tokenizer: ChatTokenizer = tokenizer.with_control(facts.control_texts)
        self._encoder = TextEncoder(self.tokenizer)
        self._facts = facts
        syntax = self._learn_calls()
        self.calls: CallSyntax = OWN if syntax is None else syntax
        """How the model writes calls of tools."""
        native = syntax is not None
        self._dialect = Dialect(native, developer=self._template.mentions("developer"))
        self.tools_format: str = "native" if native else tool_text.FORMAT
        """`native` where the template knows tools and writes calls that can be read back, else
        the id of our own format."""
        self.end_tokens: tuple[int, ...] = _end_tokens(folder, self.tokenizer, facts.end_text)
        """Ids that end an assistant's turn."""
        self.end_token: int = self.tokenizer.token_id(facts.end_text) or self.end_tokens[0]
        """The template's own."""
        self.context_tokens: int = _context_tokens(folder)
        parts = [str(RENDERER_VERSION), self.tools_format, self._template.source.sha256]
        if self.moment is not None:
            parts.append(str(self.moment))
        self.template_sha256: str = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        """Of all that decides how a chat becomes text: template, its variables, our tool format."""
        both = f"{self.template_sha256}\0{self.tokenizer.sha256}"
        self.fingerprint: str = hashlib.sha256(both.encode()).hexdigest()
        """Of all that decides how a chat becomes ids."""

    @classmethod
    def load(cls, folder: str | Path, moment: int | None = None) -> Renderer:
        """The renderer of a model folder. Raises BaseRefused naming what is missing. A template
        that writes the date is told that it is `moment`: training and serving of a tune agree on
        one. None: the day on which it is asked."""
        return cls(Path(folder), moment)

    def prompt(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Ids up to where the assistant speaks. Raises InvalidRequest with `param`."""
        chat, mark = self._read(messages, tools)
        text = self._template.render(chat.messages, chat.tools, generation=True)
        source = TemplateText(text, self._earlier_turns(chat, text), mark)
        ids: list[int] = self._encoder.encode(source).ids.tolist()
        return ids

    def plain_prompt(self, text: str) -> list[int]:
        """Ids of a text without a template, for the model to write on; never empty."""
        tokenizer = self.tokenizer
        tokens = [*tokenizer.opening_ids, *tokenizer.encode(text)]
        return tokens or [self.end_token]

    def plain_row(self, prompt: str, completion: str) -> RenderedRow:
        """A row of prompt and completion: it begins with the ids of `plain_prompt`, as it is asked
        for later, and loss is on the completion and on the first of the ends after it."""
        before = self.plain_prompt(prompt)
        after = [*self.tokenizer.encode_piece(completion), self.end_tokens[0]]
        return RenderedRow(before + after, [False] * len(before) + [True] * len(after))

    def training_row(self, messages: Messages, tools: Tools = None) -> RenderedRow:
        """The whole chat, with loss on what assistants say and on their end of turn. Raises
        InvalidRequest; also for a chat of more than one row (see `training_rows`)."""
        rows = self.training_rows([(messages, tools)])[0]
        if isinstance(rows, InvalidRequest):
            raise rows
        if len(rows) != 1:
            raise InvalidRequest(
                f"This chat trains {len(rows)} rows, because the model's chat template writes "
                "earlier turns differently once others follow.",
                param="messages",
            )
        return RenderedRow(rows[0].ids.tolist(), rows[0].learned.tolist())

    def training_rows(
        self, chats: Iterable[tuple[Messages, Tools]]
    ) -> list[tuple[TokenRow, ...] | InvalidRequest]:
        """Many chats at once, quickly. A chat is one row, or one row a learned turn where the
        template writes earlier turns differently later; or the reason why it cannot be rendered."""
        return self.encode_plans(self.plan_rows(chats))

    def plan_rows(self, chats: Iterable[tuple[Messages, Tools]]) -> list[Plan]:
        """The first half of `training_rows`: what is to be encoded. Python's work alone."""
        return [self._plan(messages, tools) for messages, tools in chats]

    def encode_plans(self, planned: Sequence[Plan]) -> list[tuple[TokenRow, ...] | InvalidRequest]:
        """The second half: mostly the tokenizer's work, which another thread may wait for."""
        texts = [
            text for plan in planned if not isinstance(plan, InvalidRequest) for text, _ in plan
        ]
        encoded = iter(self._encode_all(texts))
        done: list[tuple[TokenRow, ...] | InvalidRequest] = []
        for plan in planned:
            if isinstance(plan, InvalidRequest):
                done.append(plan)
                continue
            results = [(next(encoded), turns) for _, turns in plan]
            refused = [r for r, _ in results if isinstance(r, InvalidRequest)]
            done.append(
                refused[0]
                if refused
                else tuple(_row(r, t) for r, t in results if isinstance(r, Encoded))
            )
        return done

    @functools.cached_property
    def call_tokens(self) -> tuple[int, ...]:
        """Control tokens that are part of the text of calls."""
        syntax = self.calls
        text = "\0".join((syntax.opening, syntax.middle, syntax.between, syntax.closing))
        return tuple(piece.id for piece in self.tokenizer.control if piece.text in text)

    @functools.cached_property
    def named_roles(self) -> frozenset[str]:
        """The roles whose `name` the template writes: any other's would change nothing."""
        return frozenset(role for role in _SPEAKERS if self._writes_name(role))

    def _writes_name(self, role: str) -> bool:
        first = [{"role": role, "content": "a"}] if role in _TELLERS else []
        turns = ("user", "assistant", "user")
        plain: Messages = [*first, *({"role": turn, "content": "a"} for turn in turns)]
        named = [{**m, "name": "nemo"} if m["role"] == role else m for m in plain]
        try:
            return self.prompt(plain) != self.prompt(named)
        except (InvalidRequest, TemplateRefused):
            return False

    def _learn_calls(self) -> CallSyntax | None:
        """How the template writes calls; None where it knows none or they cannot be read back."""
        if not self._template.knows_tools:
            return None
        user = {"role": "user", "content": "Afinare?"}
        tool = {"name": "afina_probe", "description": "", "parameters": {"type": "object"}}
        tools = [{"type": "function", "function": tool}]

        def write(message: Mapping[str, Any]) -> str:
            prompt = self._template.render([user], tools, generation=True)
            whole = self._template.render([user, message], tools)
            text = whole.removesuffix(self._facts.trailing)
            ends = list(self.tokenizer.control_pattern.finditer(text))
            if not whole.startswith(prompt) or not ends:
                return ""
            return text[len(prompt) : ends[-1].start()]

        try:
            return learn_calls(write, [piece.text for piece in self.tokenizer.control])
        except TemplateRefused:
            return None

    def _encode_all(self, texts: list[TemplateText]) -> list[Encoded | InvalidRequest]:
        try:
            return list(self._encoder.encode_many(texts))
        except InvalidRequest:  # one text is at fault: find it, and keep the others
            return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: TemplateText) -> Encoded | InvalidRequest:
        try:
            return self._encoder.encode(text)
        except InvalidRequest as error:
            return error

    def _read(self, messages: Messages, tools: Tools) -> tuple[Conversation, str | None]:
        return mark_conversation(read_conversation(messages, tools, self._dialect), self.tokenizer)

    def _plan(self, messages: Messages, tools: Tools) -> Plan:
        try:
            chat, mark = self._read(messages, tools)
            turns = find_turns(self._template, self.tokenizer, chat, self._facts)
        except InvalidRequest as error:
            return error
        return [
            (TemplateText(t.text, tuple(place for span in t.spans for place in span), mark), t)
            for t in turns
        ]

    def _earlier_turns(self, chat: Conversation, text: str) -> tuple[int, ...]:
        """Where earlier answers begin in a prompt, so that they are cut as in training."""
        answers = sum(message["role"] == "assistant" for message in chat.messages)
        if not answers:
            return ()
        if self._facts.header is not None:
            places = header_places(text, self._facts.header)
            if len(places) == answers + 1:
                return tuple(places[:-1])
        try:
            turns = turns_by_prefix(self._template, self.tokenizer, chat, self._facts.trailing)
        except InvalidRequest:
            return ()
        if len(turns) != 1 or not text.startswith(turns[0].text[: turns[0].spans[-1][1]]):
            return ()
        return tuple(start for start, _ in turns[0].spans)


def _row(encoded: Encoded, turns: TurnText) -> TokenRow:
    learned = np.zeros(len(encoded.ids), dtype=np.bool_)
    for number, learns in enumerate(turns.learned):
        if learns:
            learned[encoded.positions[2 * number] : encoded.positions[2 * number + 1]] = True
    return TokenRow(encoded.ids, learned)


def _end_tokens(folder: Path, tokenizer: ChatTokenizer, end_text: str) -> tuple[int, ...]:
    """The template's end of turn, and what the model's own configuration calls an end."""
    found = {tokenizer.token_id(end_text)}
    for name in ("generation_config.json", "config.json"):
        named = _read_json(folder / name).get("eos_token_id")
        found |= set(named) if isinstance(named, list) else {named}
    return tuple(sorted(id for id in found if isinstance(id, int)))


def _context_tokens(folder: Path) -> int:
    config = _read_json(folder / "config.json")
    for part in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if isinstance(part.get(key), int):
                return int(part[key])
    return _CONTEXT_UNKNOWN


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BaseRefused(f"{path} cannot be read: {error}.", remedy="Pull it again.") from None
    return data if isinstance(data, dict) else {}
