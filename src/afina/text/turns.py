"""Where assistants speak in the text that a template writes.

Two ways that give the same. By the header: the text with which the template opens an assistant's
turn begins with a control token, which no user can forge, so it is looked for. By prefixes: the
chat is rendered up to each turn and the lengths compared, which works for every template, and is
needed for those without a header, for tools, and for those that write an earlier turn differently
once another follows (reasoning left out, say): such a chat trains one turn a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afina.errors import BaseRefused, InvalidRequest
from afina.text.conversation import Conversation
from afina.text.template import ChatTemplate, TemplateRefused
from afina.text.tokenizer import ChatTokenizer

_REASONING = ("<think>", "</think>")
_QUESTION, _ANSWER = "Afinare?", "Afinado."


@dataclass(frozen=True)
class TemplateFacts:
    """What was learned of a template by rendering small chats."""

    control_texts: frozenset[str]
    """Added tokens, special or not, that the template itself writes around turns."""
    header: str | None
    """What opens an assistant's turn, if that begins with a control token and a scan for it finds
    the same spans as rendering prefixes does."""
    end_text: str
    """The control token that ends an assistant's turn."""
    trailing: str
    """What the template writes after the end of the last turn of a chat: a line break, say."""


@dataclass(frozen=True)
class TurnText:
    """A text to train on: `spans` are (start, end) of what carries loss or, with `learned`
    False, of what does not but begins where a prompt ends."""

    text: str
    spans: tuple[tuple[int, int], ...]
    learned: tuple[bool, ...]


def learn_template(template: ChatTemplate, tokenizer: ChatTokenizer) -> TemplateFacts:
    """Probes a template. Raises BaseRefused for one that no assistant's turn can be taken from."""
    user = {"role": "user", "content": _QUESTION}
    assistant = {"role": "assistant", "content": _ANSWER}
    try:
        open_text = template.render([user], generation=True)
        whole = template.render([user, assistant])
    except TemplateRefused as error:
        raise BaseRefused(f"A question and an answer cannot be written: {error.message}") from None
    _, found, after = whole.rpartition(_ANSWER)
    outside = f"{open_text}\0{after}"
    structure = frozenset(
        piece.text
        for piece in tokenizer.added
        if piece.text in outside and piece.text.strip() and piece.text not in _REASONING
    )
    strict = tokenizer.with_control(structure)
    end = strict.control_pattern.search(after)
    if not found or end is None:
        raise BaseRefused(
            "The chat template ends an assistant's turn with no token of the model's, so no "
            "tuning could teach it when to stop.",
            remedy="Write the end-of-turn token into the folder's chat_template.jinja.",
        )
    trailing = after[_token_end(end.group(), end.start()) :]
    probe = _Probe(template, strict, trailing)
    return TemplateFacts(structure, _header(probe, open_text, user), end.group().strip(), trailing)


@dataclass(frozen=True)
class _Probe:
    """What a template is tried with."""

    template: ChatTemplate
    tokenizer: ChatTokenizer
    trailing: str


def _header(probe: _Probe, open_text: str, user: dict[str, str]) -> str | None:
    """The header, if scanning for it is as good as rendering prefixes on a few small chats."""
    template, tokenizer = probe.template, probe.tokenizer
    closed = template.render([user])
    header = open_text[len(closed) :] if open_text.startswith(closed) else ""
    first = tokenizer.control_pattern.match(header)
    if not first:
        return None
    system = {"role": "system", "content": "Sing."}
    answers = [{"role": "assistant", "content": f"{_ANSWER}{n}"} for n in range(3)]
    chats = [
        [user, answers[0]],
        [user, answers[0], user, answers[1], user, answers[2]],
        [system, user, answers[0], user, answers[1]],
    ]
    for messages in chats:
        chat = Conversation(messages, None, [m["role"] == "assistant" for m in messages])
        try:
            by_prefix = turns_by_prefix(template, tokenizer, chat, probe.trailing)
        except (TemplateRefused, InvalidRequest):
            continue
        if (
            len(by_prefix) != 1
            or turns_by_header(template, tokenizer, chat, header) != by_prefix[0]
        ):
            return None
    return header


def find_turns(
    template: ChatTemplate, tokenizer: ChatTokenizer, chat: Conversation, facts: TemplateFacts
) -> Sequence[TurnText]:
    """The text or texts that a chat trains. Raises InvalidRequest."""
    if facts.header is not None and not chat.uses_tools:
        found = turns_by_header(template, tokenizer, chat, facts.header)
        if found is not None:
            return [found]
    return turns_by_prefix(template, tokenizer, chat, facts.trailing)


def turns_by_header(
    template: ChatTemplate, tokenizer: ChatTokenizer, chat: Conversation, header: str
) -> TurnText | None:
    """Spans by looking for the header; None where the text does not hold every answer as it was
    given, or not as often as there are assistants."""
    text = template.render(chat.messages, chat.tools)
    answers = [
        (message["content"], learned)
        for message, learned in zip(chat.messages, chat.learned, strict=True)
        if message["role"] == "assistant"
    ]
    starts = header_places(text, header)
    if len(starts) != len(answers):
        return None
    spans = []
    for start, (content, _) in zip(starts, answers, strict=True):
        end = tokenizer.control_pattern.search(text, start)
        if end is None or content.strip() not in text[start : end.start()]:
            return None
        spans.append((start, _token_end(end.group(), end.start())))
    return TurnText(text, tuple(spans), tuple(learned for _, learned in answers))


def header_places(text: str, header: str) -> list[int]:
    """The place after each header in `text`."""
    places, at = [], text.find(header)
    while at >= 0:
        places.append(at + len(header))
        at = text.find(header, at + len(header))
    return places


def turns_by_prefix(
    template: ChatTemplate, tokenizer: ChatTokenizer, chat: Conversation, trailing: str
) -> Sequence[TurnText]:
    """Spans by rendering the chat up to each assistant's turn and up to its end."""
    whole = template.render(chat.messages, chat.tools)
    turns: list[tuple[str, tuple[int, int], bool]] = []
    for number, message in enumerate(chat.messages):
        if message["role"] != "assistant":
            continue
        text = template.render(chat.messages[: number + 1], chat.tools)
        start = _start(template, chat, number, text)
        end = _last_control(tokenizer, text.removesuffix(trailing), start)
        turns.append((text, (start, end), chat.learned[number]))
    stable = all(whole.startswith(text[: span[1]]) for text, span, _ in turns)
    if stable:
        return [TurnText(whole, tuple(span for _, span, _ in turns), tuple(t[2] for t in turns))]
    return [TurnText(text, (span,), (True,)) for text, span, learned in turns if learned]


def _last_control(tokenizer: ChatTokenizer, text: str, start: int) -> int:
    """The end of the last control token after `start`; of the text where there is none."""
    end = start
    for match in tokenizer.control_pattern.finditer(text, start):
        end = _token_end(match.group(), match.start())
    return end if end > start else len(text)


def _start(template: ChatTemplate, chat: Conversation, number: int, text: str) -> int:
    """Where the turn begins in `text`: where the prompt that asks for it ends."""
    if number > 0:
        prompt = template.render(chat.messages[:number], chat.tools, generation=True)
        if text.startswith(prompt):
            return len(prompt)
    else:  # nothing to ask with: the template may open the first turn of a chat differently
        asked = [{"role": "user", "content": _QUESTION}]
        closed = template.render(asked)
        header = template.render(asked, generation=True).removeprefix(closed)
        if header and header in text:
            return text.index(header) + len(header)
    raise InvalidRequest(
        "The model's chat template writes this assistant's turn otherwise than it asks for it, so "
        "training would not match serving.",
        param=f"messages[{number}]",
        remedy="Let a user's message come before the assistant's, or choose another model.",
    )


def _token_end(matched: str, start: int) -> int:
    """The end of the control token itself, without white space that it takes along."""
    return start + len(matched.rstrip())
